"""The stand-in for the PyTorch backend behaves as the native backend does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonforge.errors import CheckFailed
from tritonforge.triton import Client

pytestmark = pytest.mark.live

TENSOR = '{kind} {{ name: "{name}" data_type: TYPE_{type} dims: [{dims}] }}\n'
ONE = "instance_group { count: 1 kind: KIND_CPU }\n"


def config(inputs: dict[str, str], outputs: dict[str, str], batch: int = 4, extra: str = "") -> str:
    text = f'platform: "pytorch_libtorch" max_batch_size: {batch}\n{ONE}{extra}\n'
    for kind, tensors in (("input", inputs), ("output", outputs)):
        for name, entry in tensors.items():
            datatype, _, dims = entry.partition("[")
            text += TENSOR.format(kind=kind, name=name, type=datatype, dims=dims.rstrip("]"))
    return text


def script(folder: Path, module: Any) -> bytes:
    torch = pytest.importorskip("torch")
    path = folder / "model.pt"
    torch.jit.save(torch.jit.script(module), str(path))
    return path.read_bytes()


def subtract() -> Any:
    torch = pytest.importorskip("torch", reason="torch is not installed")

    class Subtract(torch.nn.Module):
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return a - b, (a + b).to(torch.int64)

    Subtract.forward.__annotations__ = {
        "a": torch.Tensor,
        "b": torch.Tensor,
        "return": tuple[torch.Tensor, torch.Tensor],
    }
    return Subtract()


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed")
def test_without_torch_the_package_is_named(client: Client, write: Any) -> None:
    write("no_torch", config({"a": "FP32[2]"}, {"y": "FP32[2]"}), {"model.pt": b"x"})
    with pytest.raises(CheckFailed, match="needs the package torch"):
        client.load("no_torch")


@pytest.mark.parametrize(
    ("name", "inputs", "swapped"),
    [
        ("arguments", ["b", "a"], True),
        pytest.param("indices", ["INPUT__1", "INPUT__0"], True, marks=pytest.mark.slow),
        ("order", ["first", "second"], False),
    ],
)
def test_inputs_go_by_argument_index_or_order(
    client: Client, write: Any, tmp_path: Path, name: str, inputs: list[str], swapped: bool
) -> None:
    model = script(tmp_path, subtract())
    text = config(dict.fromkeys(inputs, "FP32[2]"), {"y": "FP32[2]", "sum": "INT64[2]"})
    write(f"torch_{name}", text, {"model.pt": model})
    client.load(f"torch_{name}")
    first, second = np.float32([[5, 6]]), np.float32([[1, 2]])
    answer = client.infer(f"torch_{name}", dict(zip(inputs, [first, second], strict=True)))
    assert answer["y"].tolist() == ((second - first) if swapped else (first - second)).tolist()
    assert answer["sum"].tolist() == [[6, 8]]


def test_outputs_go_by_index(client: Client, write: Any, tmp_path: Path) -> None:
    model = script(tmp_path, subtract())
    text = config({"a": "FP32[2]", "b": "FP32[2]"}, {"sum__1": "INT64[2]", "y__0": "FP32[2]"})
    write("torch_outputs", text, {"model.pt": model})
    client.load("torch_outputs")
    answer = client.infer("torch_outputs", {"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])})
    assert [answer["y__0"].tolist(), answer["sum__1"].tolist()] == [[[4, 4]], [[6, 8]]]


def test_parameters_are_taken(client: Client, write: Any, tmp_path: Path) -> None:
    names = {
        "DISABLE_OPTIMIZED_EXECUTION": "true",
        "INFERENCE_MODE": "false",
        "INTRA_OP_THREAD_COUNT": "1",
        "INTER_OP_THREAD_COUNT": "1",
        "ENABLE_JIT_EXECUTOR": "false",
        "ENABLE_JIT_PROFILING": "false",
        "ENABLE_TENSOR_FUSER": "false",
        "ENABLE_WEIGHT_SHARING": "true",
    }
    extra = "".join(f'parameters {{ key: "{k}" value {{ string_value: "{v}" }} }}\n' for k, v in names.items())
    text = config({"a": "FP32[2]", "b": "FP32[2]"}, {"y": "FP32[2]"}, extra=extra)
    write("torch_parameters", text, {"model.pt": script(tmp_path, subtract())})
    client.load("torch_parameters")
    answer = client.infer("torch_parameters", {"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])})
    assert answer["y"].tolist() == [[4, 4]]


MISMATCH = {
    "count": ({"a": "FP32[2]"}, {"y": "FP32[2]"}, "configuration expects 1 inputs, model provides 2"),
    "datatype": ({"a": "UINT32[2]", "b": "FP32[2]"}, {"y": "FP32[2]"}, "unsupported datatype TYPE_UINT32"),
    "text": ({"a": "STRING[2]", "b": "FP32[2]"}, {"y": "FP32[2]"}, "only supports 1 dimensional List of String"),
}


@pytest.mark.parametrize(
    "case", ["count", *(pytest.param(name, marks=pytest.mark.slow) for name in ("datatype", "text"))]
)
def test_a_configuration_that_cannot_fit_is_refused(client: Client, write: Any, tmp_path: Path, case: str) -> None:
    inputs, outputs, words = MISMATCH[case]
    write(f"torch_bad_{case}", config(inputs, outputs), {"model.pt": script(tmp_path, subtract())})
    with pytest.raises(CheckFailed) as caught:
        client.load(f"torch_bad_{case}")
    assert words in str(caught.value)


def test_a_wrong_output_type_is_an_error_of_the_inference(client: Client, write: Any, tmp_path: Path) -> None:
    text = config({"a": "FP32[2]", "b": "FP32[2]"}, {"y": "FP16[2]"})
    write("torch_wrong_output", text, {"model.pt": script(tmp_path, subtract())})
    client.load("torch_wrong_output")
    with pytest.raises(CheckFailed, match="the configuration says TYPE_FP16, the model returned float32"):
        client.infer("torch_wrong_output", {"a": np.float32([[5, 6]]), "b": np.float32([[1, 2]])})


def test_a_configuration_is_never_completed(client: Client, write: Any, tmp_path: Path) -> None:
    write("torch_incomplete", 'backend: "pytorch"', {"model.pt": script(tmp_path, subtract())})
    with pytest.raises(CheckFailed, match=r"must specify|at least one"):
        client.load("torch_incomplete")
