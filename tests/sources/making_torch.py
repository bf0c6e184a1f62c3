"""PyTorch files without PyTorch: what matters of their layout, written by hand."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any


class Reduced:
    """Pickles as a call of ``module.name``."""

    def __init__(self, module: str, name: str, *arguments: Any) -> None:
        self.target = f"{module}.{name}"
        self.arguments = arguments


class Named:
    """Pickles as a global."""

    def __init__(self, module: str, name: str) -> None:
        self.module, self.name = module, name


class Stored:
    """Pickles as a reference to bytes outside the pickle."""

    def __init__(self, *key: Any) -> None:
        self.key = key


class _Pickler(pickle._Pickler):
    def persistent_id(self, value: Any) -> Any:
        return value.key if isinstance(value, Stored) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, Named):
            self.write(f"c{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Reduced):
            module, _, name = obj.target.rpartition(".")
            self.save(Named(module, name))
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def pickled(value: Any) -> bytes:
    """The pickle of ``value``, where the classes above stand for what they say."""
    stream = io.BytesIO()
    _Pickler(stream, 2).dump(value)
    return stream.getvalue()


def tensor(shape: tuple[int, ...], key: str = "0", kind: str = "FloatStorage") -> Reduced:
    """What ``torch.save`` pickles for a tensor."""
    storage = Stored("storage", Named("torch", kind), key, "cpu", 1)
    return Reduced("torch._utils", "_rebuild_tensor_v2", storage, 0, shape, (1,) * len(shape), False, {})


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """A zip below one folder, as PyTorch writes it."""
    with zipfile.ZipFile(path, "w") as made:
        for name, data in members.items():
            made.writestr(f"{path.stem}/{name}", data)
    return path


def weights(path: Path, state: Any) -> Path:
    """A file as ``torch.save`` writes it."""
    return archive(path, {"data.pkl": pickled(state), "version": b"3\n"})


def safetensors(path: Path, tensors: dict[str, tuple[str, list[int], int]]) -> Path:
    """A safetensors file: name → (type, shape, bytes)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(at))
    return path
