"""Look at a package of AOTInductor: machine code, with what it was compiled for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tritonforge.errors import Place
from tritonforge.sources.archive import open_archive
from tritonforge.sources.look.facts import Memory, ModelFacts, axis_sizes
from tritonforge.sources.look.torch_types import add_up
from tritonforge.sources.torch_file import json_member, read

_TOLD = ("AOTI_DEVICE_KEY", "AOTI_MACHINE", "AOTI_CPU_ISA", "AOTI_COMPUTE_CAPABILITY")


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the package: its native code names neither inputs nor outputs.

    Raises:
        CheckFailed: truncated or malformed.
        UsageError: an axis was given; machine code tells of none.
    """
    stored = add_up(read(path).tensors)
    versions: dict[str, str | int] = {}
    with open_archive(path) as archive:
        names = archive.namelist()
        for name in names:
            if name.endswith("_metadata.json"):
                said = json_member(archive, name)
                versions.update(
                    {key.removeprefix("AOTI_").lower(): str(said[key])[:200] for key in _TOLD if said.get(key)}
                )
        native = sum(item.file_size for item in archive.infolist() if item.filename.endswith((".so", ".pyd")))
    return ModelFacts(
        format="aoti",
        path=path,
        files={path.name: path.stat().st_size},
        sizes=axis_sizes((), axes, Place(path)),
        parameters=stored.parameters or None,
        weight_types=stored.types,
        memory=Memory(max(stored.bytes, native)),
        versions=versions,
        notes=("it is machine code for one kind of processor, and loading it runs that code",),
    )
