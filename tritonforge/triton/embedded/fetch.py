"""Get the pinned wheels: from a folder that already holds them, or by pip."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.triton.embedded.wheels import Wheel


def fetch(wheel: Wheel, architecture: str, folder: Path, *, given: Path | None, say: Callable[[str], None]) -> Path:
    """The path of the wheel's file, checked against its pinned sha256.

    Raises:
        CheckFailed: the file is another one than was pinned.
        EnvironmentLacks: it cannot be downloaded.
    """
    file = wheel.files[architecture]
    if given is not None and (given / file.name).is_file():
        path = given / file.name
    else:
        say(f"downloading {wheel.name} {wheel.version}")
        path = _download(wheel, architecture, folder)
    found = sha256(path)
    if found != file.sha256:
        raise CheckFailed(
            f"{path.name} is not the file that was pinned", expected=f"sha256 {file.sha256}", found=f"sha256 {found}"
        )
    return path


def sha256(path: Path) -> str:
    """The file's digest, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _download(wheel: Wheel, architecture: str, folder: Path) -> Path:
    file = wheel.files[architecture]
    if importlib.util.find_spec("pip") is None:
        raise EnvironmentLacks(
            f"pip is not installed in {sys.executable}, so {wheel.name} cannot be downloaded",
            hint=f"run `{sys.executable} -m ensurepip`, or name a folder that holds {file.name}",
        )
    # With a hash in the file, pip refuses anything else; pip's own configuration (mirrors, proxies) is respected.
    wanted = folder / f"{wheel.name}.txt"
    wanted.write_text(f"{wheel.name}=={wheel.version} --hash=sha256:{file.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--no-input", "--dest", str(folder)]
    done = subprocess.run(
        [*command, "--requirement", str(wanted)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    path = folder / file.name
    if done.returncode != 0 or not path.is_file():
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise EnvironmentLacks(
            f"{wheel.name} {wheel.version} could not be downloaded",
            details=said[-6:],
            hint=f"check the network and pip's index, or name a folder that holds {file.name}",
        )
    return path
