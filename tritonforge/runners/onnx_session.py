"""ONNX Runtime sessions as steps use them: on the CPU, with the optimisation that is asked for, and clear errors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonforge.errors import CheckFailed, Place

if TYPE_CHECKING:
    import onnxruntime


def open_session(
    path: Path,
    *,
    optimise: bool,
    place: Place,
    threads: int = 1,
    adjust: Callable[[onnxruntime.SessionOptions], None] | None = None,
) -> onnxruntime.InferenceSession:
    """A CPU session of the model; ``adjust`` has the last word on its options.

    Raises:
        CheckFailed: ONNX Runtime refuses the model; its own words are passed on.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    if adjust is not None:
        adjust(options)
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises its own unrelated classes
        raise CheckFailed(
            f"ONNX Runtime {onnxruntime.__version__} cannot load {path.name}",
            place=place,
            found=_first_lines(error),
            hint="check the file with `onnx.checker.check_model`, or export it again",
        ) from None


def run_session(session: Any, feeds: dict[str, Any], place: Place) -> dict[str, Any]:
    """One run: outputs by name.

    Raises:
        CheckFailed: the run fails; its inputs' shapes are named.
    """
    names = [item.name for item in session.get_outputs()]
    try:
        fed = {name: _texts(value) if value.dtype.kind == "O" else value for name, value in feeds.items()}
        return dict(zip(names, session.run(names, fed), strict=True))
    except Exception as error:
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
        raise CheckFailed(
            "ONNX Runtime cannot run the model", place=place, found=f"{_first_lines(error)} with {shapes}"
        ) from None


def _texts(array: Any) -> Any:
    """ONNX Runtime takes ``str``; of ``bytes`` it would read the representation, ``b'…'``."""
    import numpy as np

    texts = np.empty(array.shape, dtype=object)
    texts.reshape(-1)[:] = [item.decode() if isinstance(item, bytes) else item for item in array.reshape(-1).tolist()]
    return texts


def _first_lines(error: Exception) -> str:
    return " ".join(str(error).split())[:400]
