"""A Python model that runs in a packed environment of its own."""

from __future__ import annotations

import shutil
import sys
import sysconfig
import tarfile
from pathlib import Path

import pytest
from cli.commands import Workshop

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

MODEL = """
import only_here
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "x").as_numpy()
        return pb_utils.InferenceResponse([pb_utils.Tensor("y", x * only_here.FACTOR)])
"""
SPEC = """
models:
  packed:
    source: model.py
    environment: env.tar.gz
    requirements: [a-package-that-is-only-there]
    max_batch_size: 4
    inputs: {x: "FP32[2]"}
    outputs: {y: "FP32[2]"}
    golden: {cases: [cases.json]}
"""
CASES = '{"inputs": {"x": [1, 2]}, "outputs": {"y": [7, 14]}}'


def packed_environment(target: Path, scratch: Path) -> None:
    """What conda-pack would write, made of this interpreter: a prefix of its own, with a module that is only there."""
    prefix = scratch / "prefix"
    packages = prefix / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    packages.mkdir(parents=True)
    (packages / "only_here.py").write_text("FACTOR = 7\n")
    (packages / "numpy.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (prefix / "bin").mkdir()
    shutil.copy(Path(sys.executable).resolve(), prefix / "bin" / "python3")
    home = Path(sys.base_prefix) / "bin"
    (prefix / "pyvenv.cfg").write_text(f"home = {home}\nversion = {sys.version_info.major}.{sys.version_info.minor}\n")
    here = '"$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)'
    (prefix / "bin" / "activate").write_text(f'export PATH={here}:$PATH"\n')
    with tarfile.open(target, "w:gz") as archive:
        for item in sorted(prefix.iterdir()):
            archive.add(item, item.name)


def test_a_model_runs_in_its_packed_environment(runtime: Runtime, tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path / "w", runtime.root.parent)
    shop.write(SPEC)
    (shop.folder / "model.py").write_text(MODEL)
    (shop.folder / "cases.json").write_text(CASES)
    packed_environment(shop.folder / "env.tar.gz", tmp_path)
    shop.build()
    config = (shop.folder / "build/local/current/models/packed/config.pbtxt").read_text()
    assert "$$TRITON_MODEL_DIRECTORY/environment.tar.gz" in config
    result = shop.json("validate")
    assert result["ok"] is True
    assert result["models"][0]["compared"] > 0


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b"no archive"), "cannot be read"),
        (lambda path: tarfile.open(path, "w:gz").close(), "has no bin/activate"),
    ],
)
def test_what_is_no_packed_environment_is_told(make: object, says: str, tmp_path: Path) -> None:
    shop = Workshop.make(tmp_path / "w")
    shop.write(SPEC)
    (shop.folder / "model.py").write_text(MODEL)
    make(shop.folder / "env.tar.gz")  # type: ignore[operator]
    done = shop.run("build")
    assert done.code == 1
    assert says in done.err
    assert "conda-pack" in done.err
