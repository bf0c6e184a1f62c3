"""PyTorch models as Triton serves them: TorchScript, AOTInductor packages, and modules in the Python backend."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.commands import Workshop
from steps.compile.torch_sources import NET

from tritonforge.errors import CheckFailed
from tritonforge.triton import Client, RunningServer
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live
torch = pytest.importorskip("torch", reason="torch is not installed")

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="AOTInductor and torch.compile need g++")
CPU = "instance_group { count: 1 kind: KIND_CPU }\n"
X, MASK = "FP32[4]", "FP32[3]"

SPEC = """\
models:
{models}
"""
MODEL = """\
  {name}:
    source: net
    torch: {{module: "net:{cls}", weights: weights.pt}}
    inputs: {{x: "FP32[4]", mask: "FP32[3]"}}
    outputs: {{y: "FP32[3]", s: "FP32[]"}}
    backend: {backend}
    pytorch: {settings}
"""


def workshop(root: Path, runtime: Runtime, *models: tuple[str, str, str, str]) -> Workshop:
    made = Workshop.make(root / "w", runtime.root.parent)
    (made.folder / "net").mkdir()
    (made.folder / "net" / "net.py").write_text(NET)
    space: dict[str, Any] = {}
    exec(compile(NET, "net.py", "exec"), space)
    torch.save(space["Plain"]().state_dict(), made.folder / "weights.pt")
    texts = [MODEL.format(name=name, cls=cls, backend=backend, settings=said) for name, cls, backend, said in models]
    made.write(SPEC.format(models="".join(texts)))
    return made


@pytest.fixture(scope="module")
def quick(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """What compiles nothing."""
    made = workshop(
        tmp_path_factory.mktemp("torch"),
        runtime,
        ("traced", "Plain", "pytorch", "{intra_op_threads: 1, inference_mode: true}"),
        ("scripted", "Branch", "pytorch", "{method: auto}"),
        ("eager", "Stubborn", "python", '{compile_mode: "off"}'),
    )
    made.json("build")
    return made


def test_each_way_answers_as_its_module_does_in_the_server(quick: Workshop) -> None:
    done = quick.json("validate")
    assert done["ok"] is True
    assert {model["folder"] for model in done["models"]} == {"traced", "scripted", "eager"}


def test_the_evidence_says_how_each_was_made(quick: Workshop) -> None:
    said = "".join(path.read_text() for path in quick.folder.glob("build/*/evidence/**/*.json*"))
    assert "traced, frozen: no control flow depends on data" in said
    assert "scripted, frozen: if at net.py:25 depends on a tensor" in said
    assert "in the Python backend, as it is" in said


def test_settings_are_in_the_config(quick: Workshop) -> None:
    (text,) = [path.read_text() for path in quick.folder.glob("build/*/current/models/traced/config.pbtxt")]
    assert 'key: "INTRA_OP_THREAD_COUNT"' in text and 'key: "INFERENCE_MODE"' in text


@pytest.mark.slow
@needs_compiler
def test_compiled_models_answer_as_their_module_does(
    runtime: Runtime, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = workshop(
        tmp_path_factory.mktemp("compiled"),
        runtime,
        ("ahead", "Named", "pytorch", "{form: aoti}"),
        ("loaded", "Branch", "python", "{compile_mode: default}"),
    )
    made.json("build", timeout=300)
    done = made.json("validate", timeout=300)
    assert done["ok"] is True, done
    (text,) = [path.read_text() for path in made.folder.glob("build/*/current/models/ahead/config.pbtxt")]
    assert 'default_model_filename: "model.pt2"' in text and 'name: "INPUT__1"' in text
    assert "max_batch_size" not in text


PACKAGE = """\
import sys, torch

class Both(torch.nn.Module):
    def forward(self, a, b):
        return a - b, a + b

rows = torch.export.Dim("rows", min=1)
shapes = ({0: rows}, {0: rows})
graph = torch.export.export(Both(), (torch.ones(2, 2), torch.ones(2, 2)), dynamic_shapes=shapes, strict=False)
torch._inductor.aoti_compile_and_package(graph, package_path=sys.argv[1])
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """``a - b`` and ``a + b`` as an AOTInductor package."""
    if shutil.which("g++") is None:
        pytest.skip("AOTInductor needs g++")
    folder = tmp_path_factory.mktemp("package")
    # In a process of its own: PyTorch imports a package called triton, and takes the tests' folder for it here.
    done = subprocess.run(
        [sys.executable, "-c", PACKAGE, "model.pt2"], cwd=folder, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return (folder / "model.pt2").read_bytes()


def package_config(inputs: list[str], outputs: list[str], batch: int = 0) -> str:
    tensor = '{kind} {{ name: "{name}" data_type: TYPE_FP32 dims: [-1, 2] }}\n'
    tensors = [tensor.format(kind="input", name=name) for name in inputs]
    tensors += [tensor.format(kind="output", name=name) for name in outputs]
    named = 'backend: "pytorch" default_model_filename: "model.pt2"'
    return f"{named} max_batch_size: {batch}\n{CPU}{''.join(tensors)}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("ordinal", ["INPUT__1", "INPUT__0"], ["OUTPUT__1", "OUTPUT__0"]),
        ("forward", ["ARGS[1]", "ARGS[0]"], ["RESULT[1]", "RESULT[0]"]),
    ],
)
def test_the_stand_in_names_tensors_of_a_package_as_the_native_backend_does(
    client: Client, write: Any, package: bytes, name: str, inputs: list[str], outputs: list[str]
) -> None:
    write(f"aoti_{name}", package_config(inputs, outputs), {"model.pt2": package})
    client.load(f"aoti_{name}")
    second, first = np.float32([[1, 2]]), np.float32([[5, 7]])
    answer = client.infer(f"aoti_{name}", {inputs[0]: second, inputs[1]: first})
    assert answer[outputs[1]].tolist() == [[4, 5]] and answer[outputs[0]].tolist() == [[6, 9]]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "inputs", "batch", "words"),
    [
        ("named", ["a", "b"], 0, "not found in model input map"),
        ("batched", ["INPUT__0", "INPUT__1"], 4, "supports neither batching nor sequences"),
        ("few", ["INPUT__0"], 0, "expects 1 inputs, but model expects 2"),
    ],
)
def test_the_stand_in_refuses_what_the_native_backend_cannot_do_with_a_package(
    client: Client, write: Any, package: bytes, name: str, inputs: list[str], batch: int, words: str
) -> None:
    write(f"aoti_bad_{name}", package_config(inputs, ["OUTPUT__0"], batch), {"model.pt2": package})
    with pytest.raises(CheckFailed) as caught:
        client.load(f"aoti_bad_{name}")
    assert words in str(caught.value)


PYTHON = """\
import torch


class Doubled(torch.nn.Module):
    def forward(self, x, text):
        if x.float().max() > 100:
            raise ValueError("too large")
        return 2 * x
"""


def python_config(datatype: str) -> str:
    return (
        f'backend: "python" max_batch_size: 8 {CPU} dynamic_batching {{ max_queue_delay_microseconds: 200000 }}\n'
        f'input {{ name: "x" data_type: TYPE_{datatype} dims: [2] }}\n'
        f'output {{ name: "y" data_type: TYPE_{datatype} dims: [2] }}\n'
    )


def python_files(datatype: str) -> dict[str, Any]:
    """A model as ``torch-to-compile`` packs it, that runs its module as it is."""
    served = resources.files("tritonforge.steps.compile.served_torch")
    recipe = {
        "source": {
            "kind": "torch-module", "paths": ["model"], "module": "net:Doubled", "arguments": {}, "architecture": None,
            "weights": None, "sample": {}, "seed": 0,
        },
        "inputs": [{"name": "x", "datatype": datatype, "optional": False}],
        "outputs": [{"name": "y", "datatype": datatype}],
        "by_name": True,
        "mode": "off",
        "dynamic": True,
        "warm_up": [{"x": {"shape": [2, 2], "datatype": datatype, "value": 0}}],
    }  # fmt: skip
    return {
        "model.py": served.joinpath("model.py").read_text(),
        "forge_torch.py": served.joinpath("forge_torch.py").read_text(),
        "recipe.json": json.dumps(recipe),
        "source/model/net.py": PYTHON.replace(", text", ""),
    }


@pytest.mark.parametrize(
    "datatype", ["FP32", *(pytest.param(name, marks=pytest.mark.slow) for name in ("FP16", "INT64"))]
)
def test_a_module_in_the_python_backend_takes_and_gives_its_types(client: Client, write: Any, datatype: str) -> None:
    write(f"python_{datatype}", python_config(datatype), python_files(datatype))
    client.load(f"python_{datatype}")
    kinds = {"FP32": np.float32, "FP16": np.float16, "INT64": np.int64}
    answer = client.infer(f"python_{datatype}", {"x": np.array([[1, 2]], dtype=kinds[datatype])})
    assert answer["y"].tolist() == [[2, 4]]


def test_bfloat16_goes_through_the_python_backend_as_it_is(client: Client, server: RunningServer, write: Any) -> None:
    import httpx

    write("python_BF16", python_config("BF16"), python_files("BF16"))
    client.load("python_BF16")
    data = (np.float32([[1, 2.5]]).view(np.uint32) >> 16).astype(np.uint16).tobytes()
    entry = {"name": "x", "datatype": "BF16", "shape": [1, 2], "parameters": {"binary_data_size": len(data)}}
    head = json.dumps({"inputs": [entry], "outputs": [{"name": "y", "parameters": {"binary_data": True}}]}).encode()
    answer = httpx.post(
        f"{server.connection.http_url}/v2/models/python_BF16/infer",
        content=head + data,
        headers={"Inference-Header-Content-Length": str(len(head))},
    )
    assert answer.status_code == 200, answer.text
    body = answer.content[int(answer.headers["Inference-Header-Content-Length"]) :]
    assert (np.frombuffer(body, np.uint16).astype(np.uint32) << 16).view(np.float32).tolist() == [2, 5]


def test_a_bad_request_fails_alone_in_the_batch_that_it_was_joined_to(client: Client, write: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    write("python_errors", python_config("FP32"), python_files("FP32"))
    client.load("python_errors")

    def ask(value: float) -> Any:
        try:
            return client.infer("python_errors", {"x": np.full((2, 2), value, np.float32)})["y"].tolist()
        except CheckFailed as error:
            return str(error)

    with ThreadPoolExecutor(3) as pool:
        good, bad, other = pool.map(ask, [1, 1000, 3])
    assert good == [[2, 2], [2, 2]] and other == [[6, 6], [6, 6]]
    assert "too large" in bad
