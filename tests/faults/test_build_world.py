"""What else happens to a build: kills at random times, full disks, signals, other builds, a clock that is set back."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import CompletedProcess

import psutil
import pytest

from faults.build_table import Row, keep
from faults.build_watch import Reader, same_as_undisturbed, survive
from faults.conftest import Site, Stage

slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive
BUILDS = ("first", "second", "repair")


def ended(build: subprocess.Popen[str]) -> CompletedProcess[str]:
    out, err = build.communicate(timeout=240)
    return CompletedProcess(build.args, build.returncode, out, err)


def workers(build: subprocess.Popen[str]) -> list[psutil.Process]:
    """The worker processes of a build."""
    try:
        return [
            process
            for process in psutil.Process(build.pid).children()
            if "tritonforge.build.worker" in process.cmdline()
        ]
    except psutil.NoSuchProcess:
        return []


def first_worker(build: subprocess.Popen[str]) -> psutil.Process:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and build.poll() is None:
        found = workers(build)
        if found:
            return found[0]
        time.sleep(0.001)
    pytest.fail(f"no worker was started: {ended(build).stderr}")


@pytest.fixture(scope="module")
def seconds(first_build: Stage, tmp_path_factory: pytest.TempPathFactory) -> float:
    """How long a build takes that nothing disturbs."""
    site = first_build.before.copy(tmp_path_factory.mktemp("seconds") / "site")
    began = time.monotonic()
    site.good()
    return time.monotonic() - began


def seeds(count: int, quick: int, slower: int) -> list[object]:
    return [
        pytest.param(seed, marks=() if seed < quick else slow if seed < quick + slower else exhaustive)
        for seed in range(count)
    ]


@pytest.mark.parametrize("seed", seeds(100, 1, 6))
def test_a_build_that_is_killed_at_a_random_time(
    stages: dict[str, Stage], tmp_path: Path, seconds: float, seed: int
) -> None:
    generator = random.Random(seed)
    build = BUILDS[seed % len(BUILDS)]
    stage = stages[build]
    moment = generator.uniform(0.2, 1.0) * seconds

    def kill(site: Site) -> CompletedProcess[str]:
        process = site.start(*stage.arguments)
        time.sleep(moment)
        process.kill()
        return ended(process)

    site = stage.before.copy(tmp_path / "site")
    ran = survive(stage, site, kill, "random", f"{build} {seed}", any_exit=True)
    assert ran.returncode in (0, -signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("seed", seeds(12, 1, 1))
def test_a_build_that_is_told_to_stop(
    stages: dict[str, Stage], tmp_path: Path, seconds: float, seed: int, number: signal.Signals
) -> None:
    build = BUILDS[seed % len(BUILDS)]
    stage = stages[build]
    moment = random.Random(seed).uniform(0.4, 0.9) * seconds

    def stop(site: Site) -> CompletedProcess[str]:
        lock = site.build / ".." / ".lock"
        lock.unlink(missing_ok=True)  # the build before left it, and no signal may come while Python starts
        process = site.start(*stage.arguments)
        while process.poll() is None and not lock.exists():
            time.sleep(0.005)
        time.sleep(max(0.0, moment - 0.4 * seconds))
        os.killpg(process.pid, number)  # what a terminal does
        return ended(process)

    site = stage.before.copy(tmp_path / "site")
    ran = survive(stage, site, stop, "random", f"{number.name}, {build} {seed}", any_exit=True)
    assert ran.returncode in (0, 5), ran.stderr


class Disk:
    """A file system in memory that holds a site, and whose room can be changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def room(self, *, pages: int | None = None, files: int | None = None) -> None:
        """Leave room for so many more pages of 4 KiB, or files and names; without, for plenty."""
        found = os.statvfs(self.folder)
        size = 64 << 20 if pages is None else (found.f_blocks - found.f_bfree) * found.f_frsize + pages * 4096
        inodes = 100_000 if files is None else found.f_files - found.f_ffree + files
        subprocess.run(
            ["mount", "-o", f"remount,size={size},nr_inodes={inodes}", str(self.folder)],
            check=True,
            capture_output=True,
        )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    options = "size=64m,nr_inodes=100000"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


PAGES, FILES = 70, 132
"""More than a first build needs: at the last of them it must end well."""


def _rooms() -> list[object]:
    found = []
    for kind, last, quick, step in (("pages", PAGES, 20, 1), ("files", FILES, 60, 3)):
        for room in range(0, last + 1, step):
            marks = (
                ()
                if (kind, room) == ("pages", quick)
                else slow
                if room in (quick, last) or room % (20 * step) == 5 * step
                else exhaustive
            )
            found.append(pytest.param(kind, room, id=f"{kind}-{room}", marks=marks))
    return found


@pytest.mark.parametrize(("kind", "room"), _rooms())
def test_a_disk_that_is_full_before_the_build_ends(first_build: Stage, disk: Disk, kind: str, room: int) -> None:
    """With room for each number of pages (and each third of files) up to what a build needs: full at each write."""
    site = first_build.before.copy(disk.folder / "site")
    if kind == "pages":
        disk.room(pages=room)
    else:
        disk.room(files=room)
    last = room == (PAGES if kind == "pages" else FILES)
    title = f"room for so many more {kind} {room}"
    ran = survive(
        first_build, site, lambda site: site.run(None, "--jobs", "1"), "disk", title, mend=disk.room, any_exit=True
    )
    assert ran.returncode in ((0,) if last else (0, 3)), ran.stderr
    if ran.returncode:
        assert "No space left on device" in ran.stderr
    elif not last:
        assert room > 10


def at_once(sites: list[Site], home: Path) -> list[CompletedProcess[str]]:
    builds = [site.start(TRITONFORGE_HOME=str(home)) for site in sites]
    return [ended(build) for build in builds]


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=slow)])
@pytest.mark.parametrize("build", ["first", pytest.param("second", marks=slow)])
def test_builds_of_one_spec_at_once(stages: dict[str, Stage], tmp_path: Path, count: int, build: str) -> None:
    stage = stages[build]
    site = stage.before.copy(tmp_path / "site")
    with Reader(site) as reader:
        ran = at_once([site] * count, site.root / "home")
    assert [item.returncode for item in ran] == [0] * count
    outcomes = [json.loads(item.stdout)["platforms"][0] for item in ran]
    assert {item["release"] for item in outcomes} == {stage.after.current()}
    assert sorted(item["new"] for item in outcomes) == [False] * (count - 1) + [True]
    assert sorted(item["steps"]["built"] for item in outcomes)[:-1] == [0] * (count - 1)
    assert (reader.problems, reader.looks > 0) == ([], True)
    same_as_undisturbed(site, stage)
    again = site.good()
    assert (again["new"], again["steps"]["built"]) == (False, 0)
    keep(Row("world", f"{count} builds of one spec at once, {build}", 0, "new", 0, reader.looks, ""))


@pytest.mark.parametrize("count", [pytest.param(count, marks=slow) for count in (2, 8)])
def test_builds_of_equal_specs_with_one_store_at_once(first_build: Stage, tmp_path: Path, count: int) -> None:
    sites = [first_build.before.copy(tmp_path / str(number)) for number in range(count)]
    home = sites[0].root / "home"
    with Reader(sites[0]) as reader:
        ran = at_once(sites, home)
    assert [item.returncode for item in ran] == [0] * count
    assert reader.problems == []
    for site in sites:
        same_as_undisturbed(site, first_build)
        again = site.good(TRITONFORGE_HOME=str(home))
        assert again["steps"]["built"] == 0
    keep(Row("world", f"{count} builds with one store at once", 0, "new", 0, reader.looks, ""))


@pytest.mark.parametrize("share", [0.05, pytest.param(0.4, marks=slow), pytest.param(0.7, marks=slow)])
def test_a_worker_that_is_killed(first_build: Stage, tmp_path: Path, seconds: float, share: float) -> None:
    def kill(site: Site) -> CompletedProcess[str]:
        build = site.start("--jobs", "1")
        worker = first_worker(build)
        time.sleep(share * 0.4 * seconds)
        with suppress(psutil.NoSuchProcess):  # it was faster
            worker.kill()
        return ended(build)

    site = first_build.before.copy(tmp_path / "site")
    title = f"a worker is killed at {share:.0%} of its work"
    ran = survive(first_build, site, kill, "world", title, any_exit=True)
    assert ran.returncode in (0, 1)
    assert ran.returncode == 0 or "memory may have run out" in ran.stderr


@contextmanager
def small_group(limit: int) -> Iterator[Path]:
    """A control group whose processes may have ``limit`` bytes of memory."""
    for root, name in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup") / root / f"tritonforge-{os.getpid()}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            (group / name).write_text(str(limit))
        except OSError:
            group.rmdir()
            continue
        try:
            yield group
        finally:
            for _ in range(100):
                try:
                    group.rmdir()
                    break
                except OSError:
                    time.sleep(0.05)
        return
    pytest.skip("no control group can be made here that bounds memory")


@slow
def test_a_worker_that_the_kernel_kills_for_its_memory(first_build: Stage, tmp_path: Path) -> None:
    def starve(site: Site) -> CompletedProcess[str]:
        build = site.start("--jobs", "1")
        worker = first_worker(build)
        while build.poll() is None and not any((site.root / "home" / "store" / "staging").glob("*")):
            time.sleep(0.001)  # one that is killed before it has a step is replaced, and nobody notices
        (group / "cgroup.procs").write_text(str(worker.pid))
        return ended(build)

    site = first_build.before.copy(tmp_path / "site")
    with small_group(1 << 16) as group:
        title = "the kernel kills a worker that wants more memory than there is"
        ran = survive(first_build, site, starve, "world", title)
    assert ran.returncode == 1
    assert "memory may have run out" in ran.stderr


YEAR = 365 * 86400
CLOCK = """\
import os, time

shift, until = float(os.environ["CLOCK_SHIFT_S"]), time.monotonic() + float(os.environ["CLOCK_UNTIL_S"])
real, real_ns, gmtime, strftime = time.time, time.time_ns, time.gmtime, time.strftime


def ahead():
    return shift if time.monotonic() < until else 0.0


time.time = lambda: real() + ahead()
time.time_ns = lambda: real_ns() + int(ahead() * 1e9)
time.gmtime = lambda seconds=None: gmtime(time.time() if seconds is None else seconds)
time.strftime = lambda form, moment=None: strftime(form, time.gmtime() if moment is None else moment)
"""


def ahead(folder: Path, until: float) -> dict[str, str]:
    """What makes a program's clock a year fast for its first ``until`` seconds."""
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(CLOCK)
    return {"PYTHONPATH": str(folder), "CLOCK_SHIFT_S": str(YEAR), "CLOCK_UNTIL_S": str(until)}


def test_a_clock_that_is_set_back_between_two_builds(stages: dict[str, Stage], tmp_path: Path) -> None:
    """Everything that is there was made a year from now, by what it says and by its times."""
    stage = stages["second"]
    site = Site(tmp_path / "site").write()
    site.good(**ahead(tmp_path / "clock", 1e6))
    assert json.loads((site.build / "history.json").read_text())[0]["at"] > time.strftime(
        "%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + YEAR / 2)
    )
    for path in site.root.rglob("*"):
        found = path.lstat()
        if found.st_mtime > 1_500_000_000:  # finished files have times that say nothing of when
            os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + YEAR * 10**9), follow_symlinks=False)
    site.write("second")
    ran = survive(stage, site, lambda site: site.run(), "world", "the clock was set back by a year before the build")
    assert ran.returncode == 0
    again = site.good()
    assert (again["new"], again["flipped"], again["steps"]["built"]) == (False, False, 0)


@pytest.mark.parametrize("share", [pytest.param(share, marks=slow) for share in (0.5, 0.7, 0.9)])
def test_a_clock_that_is_set_back_during_a_build(
    stages: dict[str, Stage], tmp_path: Path, seconds: float, share: float
) -> None:
    stage = stages["second"]
    site = stage.before.copy(tmp_path / "site")
    clock = ahead(tmp_path / "clock", share * seconds)
    title = f"the clock is set back by a year at {share:.0%} of the build"
    ran = survive(stage, site, lambda site: site.run(None, **clock), "world", title)
    assert ran.returncode == 0
