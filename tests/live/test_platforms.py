"""A release for a GPU server is proven on the embedded server with its instances moved to the CPU, and says so."""

from __future__ import annotations

import pytest
from cli.commands import Serving, Workshop
from making_onnx import batched_add, save

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

SPEC = """\
platforms:
  local: {}
  gpu: {triton: "24.05", processor: x86_64, gpu: sm_80}
models:
  plus: {source: plus.onnx, max_batch_size: 4, router: true}
ensembles:
  over: {inputs: [x], outputs: [y], steps: [{model: plus}], router: true}
"""


@pytest.fixture(scope="module")
def both(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = Workshop.make(tmp_path_factory.mktemp("platforms") / "w", runtime.root.parent)
    save(made.folder / "plus.onnx", batched_add())
    made.write(SPEC)
    made.json("build", "--platform", "all")
    return made


def test_each_platform_says_on_what_it_was_proven(both: Workshop) -> None:
    proofs = {}
    for platform in ("local", "gpu"):
        done = both.json("validate", "--platform", platform)
        assert done["ok"] is True
        moved = {model["folder"] for model in done["models"] if model["instances_overridden"]}
        assert moved == (set() if platform == "local" else {"plus--c1"})
        proofs[platform] = both.json("release", "show", "--platform", platform)["proven_on"]
    assert all("the embedded Triton" in text for texts in proofs.values() for text in texts.values())
    assert "moved to the CPU" in proofs["gpu"]["plus--c1"]
    assert not any("moved to the CPU" in text for text in proofs["local"].values())


@pytest.mark.slow
def test_a_gpu_release_is_served_on_the_cpu_and_that_is_said(both: Workshop) -> None:
    with Serving.start(both, platform="gpu") as serving:
        said = (both.folder.parent / "serve.err").read_text()
        answers = {
            name: both.json("infer", name, '{"x": [[1, 2, 3, 4], [5, 6, 7, 8]]}', "--platform", "gpu")["outputs"]
            for name in ("plus", "plus--c1", "over", "over--c1")
        }
        assert serving.stop() == 0
    assert "there is no GPU for plus--c1: their instances run on the CPU here" in said
    assert answers["plus"] == {"y": [[2, 3, 4, 5], [6, 7, 8, 9]]}
    assert {str(answer) for answer in answers.values()} == {str(answers["plus"])}, "the router answers like its arm"
