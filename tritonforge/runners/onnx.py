"""Runs ``onnx`` artifacts with ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import Place
from tritonforge.runners.onnx_session import open_session, run_session
from tritonforge.runners.runner import Tensors

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

MODEL = "model.onnx"


class OnnxRunner:
    """A session and where its file lies, for messages."""

    def __init__(self, session: onnxruntime.InferenceSession, place: Place) -> None:
        import onnxruntime

        self.title = f"onnxruntime {onnxruntime.__version__}"
        self.session = session
        self.place = place

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
        """See :class:`~tritonforge.runners.runner.Runner`."""
        return run_session(self.session, dict(inputs), self.place)


def open_model(artifact: Artifact, folder: Path, *, threads: int, optimise: bool) -> OnnxRunner:
    """Open ``model.onnx``, or the file that the artifact names (``metadata["file"]``)."""
    file = folder / str(artifact.metadata.get("file", MODEL))
    place = Place(file)
    return OnnxRunner(open_session(file, optimise=optimise, place=place, threads=threads), place)
