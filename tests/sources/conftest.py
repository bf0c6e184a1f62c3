"""Files that PyTorch and TensorFlow themselves write, made once.

They are made in a process of its own: below ``tests/`` the folder ``triton`` would stand for the package that
``torch.export`` looks for.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

_TORCH = """
import json, sys, warnings
warnings.filterwarnings("ignore")
import torch
folder = sys.argv[1]
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)
    def forward(self, image, scale):
        return self.head(torch.relu(self.norm(self.conv(image))).mean((2, 3))) * scale
net = Net().eval()
torch.save(net.state_dict(), f"{folder}/state.pt")
torch.save(net.state_dict(), f"{folder}/legacy.pth", _use_new_zipfile_serialization=False)
torch.save(net, f"{folder}/object.pt")
torch.save({"state_dict": net.state_dict(), "optimizer": {"exp_avg": torch.zeros(1000)}}, f"{folder}/checkpoint.pt")
torch.jit.script(net).save(f"{folder}/script.pt")
example = (torch.zeros(2, 3, 8, 8), torch.zeros(1))
shapes = {"image": {0: torch.export.Dim("batch", max=64)}, "scale": None}
torch.export.save(torch.export.export(net, example, dynamic_shapes=shapes), f"{folder}/export.pt2")
tensors = [(k, str(v.dtype)[6:], list(v.shape)) for k, v in net.state_dict().items()]
print(json.dumps({"parameters": sum(p.numel() for p in net.parameters()), "tensors": tensors}))
"""
_KERAS = """
import json, sys
import keras, tensorflow as tf
folder = sys.argv[1]
net = keras.Sequential([
    keras.Input((8, 8, 3), name="image"), keras.layers.Conv2D(4, 3), keras.layers.Flatten(),
    keras.layers.Dense(2, name="scores"),
])
net.save(f"{folder}/net.keras")
net.save(f"{folder}/net.h5")
net.export(f"{folder}/saved", verbose=False)
tf.train.Checkpoint(net=net).write(f"{folder}/ck")
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2 as freeze
function = tf.function(lambda image: net(image)).get_concrete_function(tf.TensorSpec([None, 8, 8, 3]))
open(f"{folder}/frozen.pb", "wb").write(freeze(function).graph.as_graph_def().SerializeToString())
print(json.dumps({"parameters": net.count_params()}))
"""


def _make(script: str, tmp: Path, package: str) -> Path:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    folder = tmp / "files"
    folder.mkdir()
    program = tmp / "make.py"
    program.write_text(script)  # torch.jit.script reads the source of what it compiles
    done = subprocess.run(
        [sys.executable, str(program), str(folder)], cwd=tmp, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    (folder / "made.json").write_text(done.stdout.strip().splitlines()[-1])
    return folder


@pytest.fixture(scope="session")
def torch_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network in each of PyTorch's formats; ``made.json`` says what PyTorch counts in it."""
    return _make(_TORCH, tmp_path_factory.mktemp("torch"), "torch")


@pytest.fixture(scope="session")
def keras_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One small network in each of TensorFlow's formats; ``made.json`` says what Keras counts in it."""
    return _make(_KERAS, tmp_path_factory.mktemp("keras"), "tensorflow")
