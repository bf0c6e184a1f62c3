"""A store, releases and records that somebody damaged, deleted, or took the rights to."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from faults.build_watch import survive
from faults.conftest import Site, Stage

slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive

KINDS: dict[str, tuple[str, str]] = {
    "the files of the store": ("home/store/blobs", "*/*"),
    "the manifests of the store": ("home/store/artifacts", "*/*.json"),
    "the records of the store": ("home/store/keys", "*/*.json"),
    "the roots of the store": ("home/store/roots", "*.json"),
    "the memory of digests": ("home", "digests.sqlite*"),
    "the files of the release": ("spec/build/local/releases", "*/models/**/*.*"),
    "the golden files of the release": ("spec/build/local/releases", "*/golden/**/*.*"),
    "release.json": ("spec/build/local/releases", "*/release.json"),
    "the record of the last build": ("spec/build/local", "last-build.json"),
    "the history": ("spec/build/local", "history.json"),
}


def files(site: Site, kind: str) -> list[Path]:
    folder, pattern = KINDS[kind]
    return sorted(path for path in (site.root / folder).glob(pattern) if path.is_file())


def linked(site: Site, root: Path) -> Site:
    """A copy of a site in which the store and the release share their files, as a build leaves them."""
    subprocess.run(["cp", "-a", str(site.root), str(root)], check=True)
    return Site(root)


def flip(path: Path, generator: random.Random) -> None:
    """One bit of a file is another."""
    data = bytearray(path.read_bytes())
    data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    mode = path.stat().st_mode
    path.chmod(0o644)
    with path.open("r+b") as stream:  # into the same inode
        stream.write(data)
    path.chmod(mode)


BUILDS = ("nothing new", "second")
QUICK = (("the files of the store", "second"), ("release.json", "nothing new"))


def damages(quick: tuple[tuple[str, str], ...], slower: tuple[str, ...]) -> list[object]:
    return [
        pytest.param(
            kind,
            build,
            marks=() if (kind, build) in quick else slow if build == "second" and kind in slower else exhaustive,
        )
        for kind in KINDS
        for build in BUILDS
    ]


@pytest.mark.parametrize(("kind", "build"), damages(QUICK, tuple(KINDS)))
def test_flipped_bits(stages: dict[str, Stage], tmp_path: Path, kind: str, build: str) -> None:
    """A bit of every file of a kind: the very build that comes next ends well."""
    stage, title = _stage(stages, build)
    site = linked(stage.before, tmp_path / "site")
    generator = random.Random(0)
    damaged = files(site, kind)
    assert damaged
    for path in damaged:
        flip(path, generator)
    ran = survive(stage, site, lambda site: site.run(), "store", f"a flipped bit in each of {kind}, {title}")
    assert ran.returncode == 0


@pytest.mark.parametrize(("kind", "build"), damages(QUICK[:1], ("release.json", "the records of the store")))
def test_missing_files(stages: dict[str, Stage], tmp_path: Path, kind: str, build: str) -> None:
    stage, title = _stage(stages, build)
    site = linked(stage.before, tmp_path / "site")
    for path in files(site, kind):
        path.unlink()
    ran = survive(stage, site, lambda site: site.run(), "store", f"{kind} are deleted, {title}")
    assert ran.returncode == 0


FOLDERS = ("home", "home/store", "home/store/blobs", "spec/build/local/releases", "spec/build/local", "spec/build")


@pytest.mark.parametrize(
    "folder", [pytest.param(name, marks=() if name == "home/store" else exhaustive) for name in FOLDERS]
)
def test_a_missing_folder(stages: dict[str, Stage], tmp_path: Path, folder: str) -> None:
    stage, title = _stage(stages, "nothing new")
    site = linked(stage.before, tmp_path / "site")
    shutil.rmtree(site.root / folder)
    ran = survive(stage, site, lambda site: site.run(), "store", f"{folder} is deleted, {title}")
    assert ran.returncode == 0


def _stage(stages: dict[str, Stage], build: str) -> tuple[Stage, str]:
    """Where the build starts that comes over the damage: with nothing new to do, or with a new release to make."""
    if build == "nothing new":
        return Stage(stages["first"].after, stages["first"].after, broken=True), build
    return Stage(stages["second"].before, stages["second"].after, broken=True), build


BOUND = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")
BOUND += ("--inh-caps=-dac_override,-dac_read_search,-fowner",)
"""Root without its right to every file: files of other users are those of other users."""
SOMEBODY = 65534
RIGHTS: dict[str, tuple[str, str, int, int]] = {
    "the store": ("home/store", "**/*", 0o555, 0o444),
    "the lock of the store": ("home/store", ".lock", 0o755, 0o600),
    "the files of the store": ("home/store/blobs", "**/*", 0o555, 0o000),
    "the records of the store": ("home/store/keys", "**/*", 0o555, 0o000),
    "the manifests of the store": ("home/store/artifacts", "**/*", 0o555, 0o000),
    "the releases": ("spec/build/local/releases", "*", 0o555, 0o444),
    "the build folder": ("spec/build", "**/*", 0o555, 0o444),
    "forge.lock": ("spec", "forge.lock", 0o555, 0o444),
}


@pytest.mark.parametrize(
    "what", [pytest.param(what, marks=() if what == "the store" else exhaustive) for what in RIGHTS]
)
def test_files_of_another_user(stages: dict[str, Stage], tmp_path: Path, what: str) -> None:
    """The build says what it may not touch, and changes nothing; with the rights given back the next one goes on."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("files can be given to another user by root alone, and setpriv takes root's rights away")
    stage = stages["second"]
    site = linked(stage.before, tmp_path / "site")
    folder, pattern, folder_mode, file_mode = RIGHTS[what]
    top = site.root / folder
    changed = [top, *(path for path in top.glob(pattern) if not path.is_symlink())]
    before = {path: path.stat().st_mode & 0o7777 for path in changed}
    for path in reversed(changed):
        path.chmod(folder_mode if path.is_dir() else file_mode)
        os.chown(path, SOMEBODY, SOMEBODY)

    def build(site: Site) -> CompletedProcess[str]:
        command = [*BOUND, *site.command("build")]
        return subprocess.run(command, env=site.environment(), capture_output=True, text=True, timeout=240)

    def give_back() -> None:
        for path in changed:
            os.chown(path, os.getuid(), os.getgid())
            path.chmod(before[path])

    ran = survive(stage, site, build, "store", f"{what}: another user's", mend=give_back)
    assert ran.returncode == 3
    assert "Permission denied" in ran.stderr or "may not" in ran.stderr or "not permitted" in ran.stderr
