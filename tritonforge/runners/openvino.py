"""Runs ``openvino`` artifacts with OpenVINO on the CPU, in FP32 on every processor.

OpenVINO computes in BF16 where the processor has it, and Triton's backend has no setting that forbids it. What is
compared here is the conversion, which must not depend on the machine that builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import CheckFailed, EnvironmentLacks, Place
from tritonforge.runners.runner import Tensors

if TYPE_CHECKING:
    import numpy as np
    import openvino

IR: Final = "model.xml"

_TYPES: Final = {
    "boolean": "BOOL",
    "u8": "UINT8",
    "u16": "UINT16",
    "u32": "UINT32",
    "u64": "UINT64",
    "i8": "INT8",
    "i16": "INT16",
    "i32": "INT32",
    "i64": "INT64",
    "f16": "FP16",
    "f32": "FP32",
    "f64": "FP64",
    "bf16": "BF16",
    "string": "BYTES",
}


class OpenVinoRunner:
    """A compiled model and where its file lies, for messages."""

    def __init__(self, compiled: openvino.CompiledModel, place: Place) -> None:
        import openvino

        self.title = f"openvino {openvino.__version__.partition('-')[0]} (FP32)"
        self.request = compiled.create_infer_request()
        self.outputs = {name: port for port in compiled.outputs for name in port.get_names()}
        self.inputs = {name for port in compiled.inputs for name in port.get_names()}
        self.place = place

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        import numpy as np

        try:
            self.request.infer({name: value for name, value in inputs.items() if name in self.inputs})
            # Copies: the tensors' memory is used again by the next inference.
            return {name: np.array(self.request.get_tensor(port).data) for name, port in self.outputs.items()}
        except Exception as error:  # OpenVINO raises RuntimeError, and ValueError for what does not fit a shape
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in inputs.items())
            raise CheckFailed(
                "OpenVINO cannot run the model",
                place=self.place,
                found=f"{' '.join(str(error).split())[:400]} with {shapes}",
            ) from None


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> OpenVinoRunner:
    """Open ``model.xml``; OpenVINO's optimisations are always on."""
    path = folder / IR
    return OpenVinoRunner(compile_ir(path, threads=threads), Place(path))


def compile_ir(path: Path, *, threads: int) -> openvino.CompiledModel:
    """The model compiled for the CPU.

    Raises:
        EnvironmentLacks: openvino is not installed.
        CheckFailed: it refuses the model; its own words are passed on.
    """
    try:
        import openvino
    except ImportError:
        raise EnvironmentLacks(
            "the package openvino is not installed", hint="pip install 'tritonforge[openvino]'"
        ) from None
    properties = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino.Core()
    try:
        return core.compile_model(core.read_model(str(path)), "CPU", properties)
    except RuntimeError as error:
        raise CheckFailed(
            f"OpenVINO {openvino.__version__.partition('-')[0]} cannot load {path.name}",
            place=Place(path),
            found=" ".join(str(error).split())[:600],
            hint="serve the model with onnxruntime",
        ) from None


def datatype_of(port: Any) -> str:
    """Triton's name of a port's element type; OpenVINO's own where Triton has none."""
    name = str(port.get_element_type().get_type_name())
    return _TYPES.get(name, name)
