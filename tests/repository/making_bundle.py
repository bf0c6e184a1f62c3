"""Releases and bundles in a moment: no build, and no need for a bundle to be a good one."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tritonforge.repository.bundle import export_bundle
from tritonforge.repository.bundle_manifest import Image
from tritonforge.repository.bundle_zstd import Decompressed, compressing
from tritonforge.repository.release import PlatformFolder, Release, ReleaseDraft, read_release

IMAGE = Image(reference="nvcr.io/nvidia/tritonserver:24.10-py3")
PLATFORM = {
    "name": "local",
    "triton": "24.10",
    "embedded": True,
    "processor": "x86_64",
    "gpu": None,
    "gpus": 0,
    "tensorrt": None,
    "jetpack": None,
}
ENSEMBLE = """\
platform: "ensemble"
ensemble_scheduling { step { model_name: "net" model_version: 1 } step { model_name: "words" model_version: 2 } }
"""
FILES: Mapping[str, bytes] = {
    "net/config.pbtxt": b'backend: "onnxruntime"\n',
    "net/1/model.onnx": b"weights" * 1000,
    "words/config.pbtxt": b'backend: "python"\n',
    "words/2/model.py": b"class TritonPythonModel: pass\n",
    "words/2/requirements.txt": b"numpy==2.1.0\n# for names\nregex>=2024  # newer\n-r other.txt\n",
    "all/config.pbtxt": ENSEMBLE.encode(),
}
VERSIONS = {"net": 1, "words": 2, "all": 3}
GOLDEN: Mapping[str, bytes] = {"net/generated/cases.json": b"[]\n", "net/generated/tensors.bin": b"\0" * 64}


def make_release(root: Path, *, files: Mapping[str, bytes] = FILES, platform: Mapping[str, Any] = PLATFORM) -> Release:
    """A release below ``root``, a platform's folder, that is just like a built one."""
    golden: dict[str, dict[str, dict[str, Any]]] = {}
    for path, data in GOLDEN.items():
        name, kind, file = path.split("/")
        golden.setdefault(name, {}).setdefault(kind, {})[file] = _entry(data)
    draft = ReleaseDraft(
        {
            "schema": 1,
            "name": "tiny",
            "platform": dict(platform),
            "server": {"arguments": ["--exit-timeout-secs=5"]},
            "models": [_model(name, files) for name in sorted({path.split("/")[0] for path in files})],
            "golden": golden,
        },
        {},
    )
    folder = root / "releases" / draft.digest
    contents = {f"models/{path}": data for path, data in files.items()}
    contents |= {f"golden/{path}": data for path, data in GOLDEN.items()}
    for path, data in {**contents, "release.json": draft.text}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    for name, version in VERSIONS.items():
        (folder / "models" / name / str(version)).mkdir(parents=True, exist_ok=True)
    return read_release(folder)


def _model(name: str, files: Mapping[str, bytes]) -> dict[str, Any]:
    own = {path.split("/", 1)[1]: _entry(data) for path, data in files.items() if path.split("/")[0] == name}
    kind = "ensemble" if name == "all" else "model"
    backend = {"all": "ensemble", "words": "python"}.get(name, "onnxruntime")
    steps = [{"step": "import", "key": "k" * 64, "sources": {"a.onnx": "5" * 64}, "tools": {"onnx": "1.18.0"}}]
    return {
        "name": name,
        "folder": name,
        "kind": kind,
        "format": backend,
        "backend": backend,
        "version": VERSIONS[name],
        "artifact": "a" * 64,
        "config": own["config.pbtxt"]["sha256"],
        "max_batch_size": 0,
        "decoupled": False,
        "signature": {"inputs": [], "outputs": [], "batched": False},
        "files": own,
        "made_from": steps if name == "net" else [],
    }


def _entry(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def make_bundle(folder: Path, **options: Any) -> Path:
    """A good bundle in ``folder``."""
    file = folder / "good.tar.zst"
    export_bundle(make_release(folder / "from"), IMAGE, file, **options)
    return file


def unpacked(file: Path) -> dict[str, bytes | None]:
    """The members of a bundle in their order; None for a folder."""
    stream = Decompressed(file)
    pieces = []
    while piece := stream.read(1 << 20):
        pieces.append(piece)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as archive:
        return {
            member.name: None if member.isdir() else archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive
        }


def packed(
    file: Path, members: Mapping[str, bytes | None], extra: Iterable[tuple[tarfile.TarInfo, bytes]] = ()
) -> Path:
    """A bundle of these members as they are, then of ``extra``."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.type, info.size = (tarfile.DIRTYPE, 0) if data is None else (tarfile.REGTYPE, len(data))
            archive.addfile(info, io.BytesIO(data or b""))
        for info, data in extra:
            archive.addfile(info, io.BytesIO(data))
    return compressed(file, raw.getvalue())


def compressed(file: Path, data: bytes) -> Path:
    with file.open("wb") as target, compressing(target) as stream:
        stream.write(data)
    return file


def with_manifest(members: Mapping[str, bytes | None], change: Any) -> dict[str, bytes | None]:
    """The members with a manifest that ``change`` was applied to."""
    value = json.loads(members["manifest.json"] or b"")
    change(value)
    return {**members, "manifest.json": json.dumps(value).encode()}


def platform_folder(root: Path) -> PlatformFolder:
    return PlatformFolder(root)
