"""``image``: a folder to build a serving image from, made for what a release needs.

Kinds: ``gpu``, ``cpu`` and ``jetson`` serve the release that is mounted at ``/models``; ``release`` has it baked in.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tritonforge import __version__
from tritonforge.actions.bundle import serving_image
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.linking import place_file
from tritonforge.durable import disk_errors, exchange, fsync_folder
from tritonforge.errors import SpecError, UsageError
from tritonforge.repository.release import Release
from tritonforge.repository.sbom import MAX_REQUIREMENTS, is_requirements
from tritonforge.repository.template import house_templates, render
from tritonforge.spec.platform import Platform

Kind = Literal["gpu", "cpu", "jetson", "release"]

_REFERENCE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:-]{0,400}(@sha256:[0-9a-f]{64})?")
_NO_FOLDER: Final = ("ensemble",)
"""Backends that are part of the server itself."""
_MARK: Final = ".tritonforge-image"
"""Says that a folder is ours to replace."""
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__")


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """``base`` and ``minimal`` are image references; ``wheels`` is a folder of packages for sites without an index."""

    kind: Kind | None = None
    base: str | None = None
    minimal: str | None = None
    wheels: Path | None = None
    output: Path | None = None


@dataclass(frozen=True, slots=True)
class ImageContext:
    """A folder that an image can be built from. ``pinned`` says whether all its bases are named by digest."""

    folder: Path
    kind: Kind
    release: Release
    base: str
    minimal: str | None
    backends: tuple[str, ...]
    requirements: tuple[str, ...]
    pinned: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "folder": str(self.folder),
            "kind": self.kind,
            "release": self.release.digest,
            "base": self.base,
            "minimal": self.minimal,
            "backends": list(self.backends),
            "requirements": list(self.requirements),
            "pinned": self.pinned,
        }


def image_context(
    workspace: Workspace, platform_name: str | None, reference: str | None, options: ImageOptions
) -> ImageContext:
    """Write the folder (``build/<platform>/image-<kind>`` without a name), whole or not at all.

    A folder that an earlier run wrote is replaced; any other that has something in it is refused.

    Raises:
        UsageError: there is no such release or platform, or a reference or a folder cannot be used.
        CheckFailed: no image of NVIDIA's fits the platform.
        EnvironmentLacks: the folder cannot be written.
    """
    platform = workspace.platform(platform_name)
    releases = workspace.releases(platform)
    release = releases.find(reference)
    kind = options.kind or _kind(platform)
    if kind == "release" and options.minimal is not None:
        raise UsageError("a release is baked into one base", hint="make the smaller image first, and name it by --base")
    base = _checked(options.base or _base(kind, platform, release))
    minimal = None if kind == "release" else options.minimal or _minimal(base)
    target = options.output or releases.root / f"image-{kind}"
    made = ImageContext(
        target,
        kind,
        release,
        base,
        None if minimal is None else _checked(minimal),
        tuple(sorted({entry["backend"] for entry in release.models()} - set(_NO_FOLDER))),
        tuple(_requirements(release)),
        all("@sha256:" in image for image in (base, minimal) if image is not None),
    )
    with releases.hold(release), disk_errors("cannot write the image's folder", target):
        _write(made, options.wheels)
    return made


def _kind(platform: Platform) -> Kind:
    if platform.jetpack is not None:
        return "jetson"
    return "gpu" if platform.gpus else "cpu"


def _base(kind: Kind, platform: Platform, release: Release) -> str:
    """The platform's image, else NVIDIA's; for a Jetson by the table of JetPacks."""
    if platform.image is None and platform.jetpack is not None:
        return _jetson_image(platform.jetpack, platform.triton)
    if kind == "jetson" and platform.image is None:
        raise UsageError(
            f"the platform '{platform.name}' is no Jetson",
            hint='say its JetPack (`jetpack: "6.2"`) in the spec, or name the image by --base',
        )
    image = serving_image(release)
    return image.reference if image.digest is None else f"{image.reference}@{image.digest}"


def _jetson_image(jetpack: str, triton: str) -> str:
    from tritonforge.rollout.jetson.table import row_of

    row = row_of(jetpack.partition(".")[0])
    if row is None or row.image is None:
        raise UsageError(
            f"NVIDIA publishes no Triton image for JetPack {jetpack}",
            details=() if row is None else row.instead,
            hint="name an image of your own by --base",
        )
    if (row.first is not None and triton < row.first) or (row.last is not None and triton > row.last):
        raise UsageError(
            f"Triton {triton} has no image for JetPack {jetpack}",
            expected=f"{row.first} to {row.last}" if row.last else f"{row.first} or newer",
            hint="change the platform's `triton`, or name an image of your own by --base",
        )
    return row.image.format(release=triton)


def _minimal(base: str) -> str | None:
    """The image beside NVIDIA's own that has CUDA and nothing of Triton.

    Source: Triton's ``docs/customization_guide/compose.md``, which names ``YY.MM-py3-min`` beside ``YY.MM-py3``; there
    is none for Jetson.
    """
    found = re.fullmatch(r"(nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3)(@.*)?", base)
    return None if found is None else f"{found[1]}-min"


def _checked(reference: str) -> str:
    if not _REFERENCE.fullmatch(reference):
        raise UsageError(
            f"'{reference}' is no image",
            expected="NAME[:TAG][@sha256:…], such as nvcr.io/nvidia/tritonserver:24.10-py3",
        )
    return reference


def _requirements(release: Release) -> list[str]:
    """The lines of all models' requirements, without those that stand there twice; pip tells what contradicts."""
    lines: dict[str, None] = {}
    for entry in release.models():
        for path, item in sorted(entry["files"].items()):
            if is_requirements(path) and item["size"] <= MAX_REQUIREMENTS:
                text = (release.models_folder / entry["folder"] / path).read_text(encoding="utf-8")
                lines.update(dict.fromkeys(line.strip() for line in text.splitlines()))
    return [line for line in lines if line and not line.startswith("#")]


def _write(made: ImageContext, wheels: Path | None) -> None:
    target = made.folder.absolute()
    if target.exists() and not (target / _MARK).exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(
            "that folder is somebody's: it is not empty, and no earlier run wrote it",
            found=str(made.folder),
            hint="name another by -o",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.{os.getpid()}.staging")
    for left in target.parent.glob(f".{target.name}.*.staging"):
        owner = left.name.split(".")[-2]
        if owner == str(os.getpid()) or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(left, ignore_errors=True)
    staging.mkdir()
    try:
        _fill(staging, made, wheels)
        for base, folders, _ in os.walk(staging):
            for name in folders:
                (Path(base) / name).chmod(0o755)  # whatever the umask: the server is another user
            fsync_folder(Path(base))
        if target.exists():
            exchange(staging, target)
            shutil.rmtree(staging, ignore_errors=True)
        else:
            staging.rename(target)
        fsync_folder(target.parent)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def _fill(folder: Path, made: ImageContext, wheels: Path | None) -> None:
    scripts = house_templates() / "docker"
    named = ["healthcheck.sh", *(["collect.sh"] if made.minimal else [])]
    for name in named:
        shutil.copyfile(scripts / name, folder / name)
        (folder / name).chmod(0o755)
    ignored = [f"!{name}" for name in named]
    if made.requirements:
        _put(folder / "requirements.txt", "\n".join(made.requirements) + "\n")
        ignored.append("!requirements.txt")
        if wheels is not None:
            if not wheels.is_dir():
                raise UsageError("the wheels are no folder", found=str(wheels))
            shutil.copytree(wheels, folder / "wheels", ignore=_LEFT_OUT)
            ignored.append("!wheels/")
    if made.kind == "release":
        _place_models(made.release, folder)
        ignored += ["!models/", "!release.json"]
    _put(folder / ".dockerignore", "\n".join(["# Nothing but what the Dockerfile takes.", "*", *ignored]) + "\n")
    _put(folder / "Dockerfile", render("docker", made.kind, _variables(made, wheels)).text)
    _put(folder / _MARK, f"{made.release.digest}\n")


def _place_models(release: Release, folder: Path) -> None:
    for entry in release.models():
        (folder / "models" / entry["folder"] / str(entry["version"])).mkdir(parents=True, exist_ok=True)
        for path in entry["files"]:
            target = folder / "models" / entry["folder"] / path
            if not target.exists():  # versions of one model share its config
                place_file(release.models_folder / entry["folder"] / path, target)
    place_file(release.folder / "release.json", folder / "release.json")


def _put(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)


def _variables(made: ImageContext, wheels: Path | None) -> Mapping[str, Any]:
    document = made.release.document
    arguments: Sequence[str] = document["server"]["arguments"]
    for backend in made.backends:
        if not re.fullmatch(r"[A-Za-z0-9_-]+", backend):
            raise SpecError(f"'{backend}' is no name of a backend that a folder can have")
    title = f"{document['name']}: Triton {document['platform']['triton']} for {made.kind}"
    if made.kind == "release":
        title = f"{document['name']}, release {made.release.digest[:12]}"
    return {
        "title": title,
        "version": __version__,
        "digest": made.release.digest,
        "triton": document["platform"]["triton"],
        "base": made.base,
        "minimal": made.minimal,
        "pinned": made.pinned,
        "backends": made.backends,
        "requirements": bool(made.requirements),
        "wheels": wheels is not None,
        "arguments": list(arguments),
    }
