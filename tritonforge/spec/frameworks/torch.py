"""How a PyTorch source is loaded."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import StringConstraints

from tritonforge.spec.source import SourceRef
from tritonforge.spec.strict import RelativePath, Strict


class TorchSource(Strict):
    """How a PyTorch source is loaded. TorchScript and `torch.export` files need none of it."""

    module: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$")] | None = None
    """The class, or a function that makes the module: `PACKAGE.MODULE:NAME`, from the source's own folder, from
    `code`, or installed."""
    arguments: dict[str, Any] = {}
    """Keyword arguments of the class or function."""
    weights: SourceRef | None = None
    """A state dict (`.safetensors`, `.pt`, `.pth`, `.bin`) that is loaded into the module."""
    state_key: str | None = None
    """Where the state dict stands inside the file, such as `state_dict` or `model`."""
    strict: bool = True
    """Every key of the state dict must fit, and every weight of the module must be there."""
    code: dict[RelativePath, SourceRef] = {}
    """Python files that `module` needs, by the path that they get."""
    allow_pickle: bool = False
    """Unpickle this very file, which runs whatever code it holds. Only for files that you made yourself."""
    sample: dict[str, Any] = {}
    """Further arguments of `forward` that are fixed (numbers, booleans, texts), by their names."""
