"""Load a TensorFlow source by its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge.errors import InternalError
from tritonforge.sources.tensorflow import checkpoint, graphdef, keras_file, savedmodel
from tritonforge.sources.tensorflow.loaded import Loaded

_KINDS = {
    "savedmodel": savedmodel.load,
    "keras": keras_file.load,
    "graphdef": graphdef.load,
    "tf-checkpoint": checkpoint.load,
}


def load_function(folder: Path, recipe: Mapping[str, Any]) -> Loaded:
    """The source whose files lie in ``folder`` (``model/``, ``code/``) as one function.

    The recipe is :class:`~tritonforge.spec.frameworks.tensorflow.TensorFlowSource` as data, with ``kind``, and where
    the model does not say them itself the spec's inputs and outputs (``declared``: tensors as tuples, names).

    Raises:
        CheckFailed: it cannot be loaded, or is unsafe; what to do is in it.
        EnvironmentLacks: TensorFlow is not installed.
    """
    kind = str(recipe["kind"])
    if kind not in _KINDS:
        raise InternalError(f"'{kind}' is no kind of TensorFlow source")
    return _KINDS[kind](folder, recipe)
