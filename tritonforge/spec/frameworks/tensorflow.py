"""How a TensorFlow source is loaded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import StringConstraints

from tritonforge.spec.source import SourceRef
from tritonforge.spec.strict import RelativePath, Strict


class TensorFlowSource(Strict):
    """How a TensorFlow source is loaded."""

    signature: str | None = None
    """The SavedModel's signature, needed where it has several; the method of a `tf.Module` that a factory makes."""
    tags: list[str] | None = None
    """The SavedModel's tags; `serve` when absent."""
    inputs: list[str] | None = None
    """Input tensors of a frozen graph, such as `x:0`; its placeholders when absent."""
    outputs: list[str] | None = None
    """Output tensors of a frozen graph, such as `Identity:0`; what nothing else reads when absent."""
    factory: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    """A function that makes the model that a checkpoint is restored into: `PACKAGE.MODULE:NAME`."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the factory."""
    code: dict[RelativePath, SourceRef] = {}
    """Python files that the factory, or custom layers, need, by the path that they get."""
    custom_objects: dict[str, str] = {}
    """Classes of custom Keras layers by their registered name: `PACKAGE.MODULE:NAME`."""
