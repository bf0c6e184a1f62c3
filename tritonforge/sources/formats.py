"""Which format a model has, told by names, heads of files and listings of archives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed

FORMATS: Final = (
    "onnx",
    "python",
    "torchscript",
    "torch-export",
    "aoti",
    "torch-weights",
    "torch-pickle",
    "savedmodel",
    "keras",
    "graphdef",
    "tf-checkpoint",
    "huggingface",
    "openvino",
)

_CONFIG_LIMIT: Final = 4 * 2**20
_HDF5: Final = b"\x89HDF\r\n\x1a\n"


def detect(path: Path) -> str | None:
    """One of ``FORMATS``, or None where ``path`` is missing or none of them.

    Weights are never read; of a PyTorch zip or pickle the opcodes decide whether it holds weights alone
    (``torch-weights``) or names other globals (``torch-pickle``), and nothing of it is executed. A format that is told
    by a suffix alone (``.onnx``, ``.pb``) is not proof that the file is whole: reading it says that.
    The prefix of a TensorFlow checkpoint (``model.ckpt`` for ``model.ckpt.index``) and a SavedModel's
    ``saved_model.pb`` itself are told too.
    """
    if path.is_dir():
        return _folder(path)
    if path.is_file():
        return _file(path)
    if path.name and path.with_name(f"{path.name}.index").is_file() and _shards(path):
        return "tf-checkpoint"
    return None


def only(folder: Path, suffix: str) -> Path | None:
    """The one file of ``folder`` with this suffix; None where there is none, or more than one."""
    files = [file for file in folder.iterdir() if file.suffix == suffix and file.is_file()]
    return files[0] if len(files) == 1 else None


def _folder(path: Path) -> str | None:
    if (path / "saved_model.pb").is_file():
        return "savedmodel"
    if (path / "model.py").is_file():
        return "python"
    if _names_architecture(path / "config.json"):
        return "huggingface"
    if only(path, ".onnx") is not None:
        return "onnx"
    graph = only(path, ".xml")
    if graph is not None and graph.with_suffix(".bin").is_file():
        return "openvino"
    index = only(path, ".index")
    if (path / "checkpoint").is_file() or (index is not None and _shards(index.with_suffix(""))):
        return "tf-checkpoint"
    return None


def _names_architecture(path: Path) -> bool:
    if not path.is_file() or path.stat().st_size > _CONFIG_LIMIT:
        return False
    try:
        said = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    return isinstance(said, dict) and ("model_type" in said or "architectures" in said)


def _file(path: Path) -> str | None:
    suffix = path.suffix.lower()
    if suffix == ".onnx":
        return "onnx"
    # What reads archives and pickles is imported only for them: an ONNX model is told at once.
    from tritonforge.sources.torch_file import LEGACY_MAGIC

    if path.name == "model.py":
        return "python"
    if path.name == "saved_model.pb":
        return "savedmodel"
    with path.open("rb") as stream:
        head = stream.read(16)
    if head.startswith(b"PK"):
        return _zip(path)
    if suffix == ".safetensors":
        return "torch-weights"
    if head.startswith(LEGACY_MAGIC) or (head[:1] == b"\x80" and suffix in (".pt", ".pth", ".bin", ".ckpt")):
        return _pickle(path)
    if head.startswith(_HDF5):
        return "keras"
    if suffix in (".h5", ".hdf5", ".keras"):
        return None
    if suffix == ".pb":
        return "graphdef"
    if suffix == ".index" and _shards(path.with_suffix("")):
        return "tf-checkpoint"
    if suffix == ".xml" and path.with_suffix(".bin").is_file():
        return "openvino"
    return None


def _zip(path: Path) -> str | None:
    from tritonforge.sources.archive import open_archive
    from tritonforge.sources.torch_file import zip_kind

    try:
        with open_archive(path) as archive:
            names = archive.namelist()
    except CheckFailed:
        return None
    if "config.json" in names and ("metadata.json" in names or path.suffix == ".keras"):
        return "keras"
    kind = zip_kind(names)
    return _pickle(path) if kind == "pickle" else kind


def _pickle(path: Path) -> str | None:
    from tritonforge.sources.torch_file import read

    try:
        return read(path).kind
    except CheckFailed:
        return None


def _shards(prefix: Path) -> bool:
    return any(file.name.startswith(f"{prefix.name}.data-") for file in prefix.parent.iterdir())
