"""Make a TorchScript file say nothing of the process that wrote it, so that equal modules give equal bytes.

PyTorch numbers classes by how many it has seen (``___torch_mangle_17``), and puts the paths of the sources that it
read into ``*.debug_pkl``. Neither changes what is computed; stacks in error messages are shorter without them.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Final

_MANGLED: Final = re.compile(rb"___torch_mangle_\d+")
_TEXTS: Final = (".py", ".pkl")
_WRITTEN_BY_ITSELF: Final = ("version", ".data/version", ".data/serialization_id", "byteorder")


def normalise(source: Path, target: Path) -> None:
    """Write ``source`` again as ``target``, with classes numbered by where they first stand, without debug files."""
    import torch

    numbers: dict[bytes, bytes] = {}

    def renumber(match: re.Match[bytes]) -> bytes:
        return numbers.setdefault(match.group(), b"___torch_mangle_%d" % len(numbers))

    with zipfile.ZipFile(source) as archive:
        names = [item.filename for item in archive.infolist()]
        root = names[0].partition("/")[0]
        records: dict[str, bytes] = {}
        for name in names:
            inner = name.removeprefix(f"{root}/")
            if inner.endswith(".debug_pkl") or inner in _WRITTEN_BY_ITSELF:
                continue
            data = archive.read(name)
            if inner.endswith(_TEXTS):
                data = _MANGLED.sub(renumber, data)
            records[_MANGLED.sub(renumber, inner.encode()).decode()] = data
    writer = torch._C.PyTorchFileWriter(str(target))
    for name, data in records.items():
        writer.write_record(name, data, len(data))
    writer.write_end_of_file()
