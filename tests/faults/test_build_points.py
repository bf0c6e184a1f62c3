"""At every durable step of three builds: kill the build, or fill the disk. ``current`` stays whole; the next build
ends like one that nothing ever disturbed."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from faults.build_watch import survive
from faults.conftest import Site, Stage
from tritonforge.durable import FAULT_POINTS

slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive


def _step(files: int) -> tuple[str, ...]:
    """What a step of the graph passes that makes so many files."""
    blobs = ("store.blob.link", "store.blob.linked") * files
    return (*blobs, "store.manifest.rename", "store.key.link", "store.key.linked")


_RELEASE = ("release.stage", "release.staged", "release.rename", "release.renamed")
_FLIP = ("current.flip", "current.flipped", "history.rename")
POINTS = {
    "first": (
        "store.root.rename",
        *_step(1),  # label/import-python
        *_step(1),  # net/import-onnx
        *_step(2),  # net/golden
        *_step(1),  # net/parity
        "lock.rename",
        "lock.renamed",
        *_RELEASE,
        *_FLIP,
        "evidence.rename",
        "build.record.rename",
    ),
    "second": (
        "store.root.rename",
        *_step(1),
        "lock.rename",
        "lock.renamed",
        *_RELEASE,
        *_FLIP,
        "build.record.rename",
        "release.prune",
        "release.pruned",
    ),
    "repair": (
        "store.root.rename",
        "store.key.forget",
        "store.blob.link",  # net/golden: one file of two is there
        "store.blob.linked",
        "store.manifest.rename",
        "store.key.link",
        "store.key.unbind",
        "store.key.link",
        "store.key.linked",
        "store.manifest.rename",  # label/import-python: its file is there
        "store.key.link",
        "store.key.linked",
        *_RELEASE,
        "build.record.rename",
    ),
}
"""The steps of each build in their order."""

IN_WORKER = ("store.blob", "store.manifest", "store.key.link", "store.key.unbind")
FORGIVEN = ("release.prune", "release.pruned")
"""The release is out; what could not be deleted goes next time."""
QUICK_KILLS = (
    ("first", "store.key.link#2"),
    ("second", "current.flip#1"),
    ("repair", "release.rename#1"),
)
QUICK_FULL = (("second", "release.staged#1"),)


def times() -> Iterator[tuple[str, int, str]]:
    """Every passage of every build: its number, and the point with the how-many-th time it is passed."""
    for build, points in POINTS.items():
        seen: Counter[str] = Counter()
        for number, name in enumerate(points, 1):
            seen[name] += 1
            yield build, number, f"{name}#{seen[name]}"


def spread(quick: tuple[tuple[str, str], ...], beat: int) -> list[object]:
    return [
        pytest.param(
            build,
            number,
            point,
            id=f"{build}-{number}-{point}",
            marks=() if (build, point) in quick else slow if number % 8 == beat else exhaustive,
        )
        for build, number, point in times()
    ]


def test_every_point_is_a_step_of_one_of_the_builds() -> None:
    assert {name for points in POINTS.values() for name in points} == set(FAULT_POINTS)


@pytest.mark.parametrize("build", [pytest.param(build, marks=slow) for build in POINTS])
def test_the_steps_are_those_of_the_trace(stages: dict[str, Stage], tmp_path: Path, build: str) -> None:
    site, trace = stages[build].before.copy(tmp_path / "site"), tmp_path / "trace"
    site.good("--jobs", "1", *stages[build].arguments, TRITONFORGE_TRACE=str(trace))
    assert [line.partition(" ")[2] for line in trace.read_text().splitlines()] == list(POINTS[build])


@pytest.mark.parametrize(("build", "number", "point"), spread(QUICK_KILLS, 3))
def test_a_build_that_is_killed(stages: dict[str, Stage], tmp_path: Path, build: str, number: int, point: str) -> None:
    stage = stages[build]
    site = stage.before.copy(tmp_path / "site")
    fault = f"{build} {number} {point}"
    ran = survive(stage, site, lambda site: site.run(point, "--jobs", "1", *stage.arguments), "kill", fault)
    if point.startswith(IN_WORKER):
        assert ran.returncode == 1
        assert "died" in ran.stderr
        assert "SIGKILL" in ran.stderr
    else:
        assert ran.returncode == -signal.SIGKILL
    assert len(list((site.build / "evidence").rglob("*.json"))) == 1
    if number % 4 == 3:
        again = site.good()
        assert (again["new"], again["flipped"], again["steps"]["built"]) == (False, False, 0)


@pytest.mark.parametrize(("build", "number", "point"), spread(QUICK_FULL, 7))
def test_a_build_that_meets_a_full_disk(
    stages: dict[str, Stage], tmp_path: Path, build: str, number: int, point: str
) -> None:
    stage = stages[build]
    site = stage.before.copy(tmp_path / "site")
    fault = f"{build} {number} {point}"
    asked = f"{point}:enospc"
    ran = survive(stage, site, lambda site: site.run(asked, "--jobs", "1", *stage.arguments), "full", fault)
    if point.startswith(FORGIVEN):
        assert ran.returncode == 0
    else:
        assert ran.returncode == 3
        assert "No space left on device" in ran.stderr


CALLS = (
    "fsync,fdatasync,sync,syncfs,rename,renameat,renameat2,link,linkat,unlink,unlinkat,rmdir,symlink,symlinkat,write"
)
"""What makes a change durable or seen, and ``write``: the trace of the points shows between them."""
OPTIONS = ("-f", "-qq", "-y", "-s", "4096", "-e", "signal=none", "-e", f"trace={CALLS}", "-o")
LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
PATHS = re.compile(r'"((?:[^"\\]|\\.)*)"')
OPEN = re.compile(r"^-?\d+<([^>]*)>")

STEPS = (
    ("store.root.rename", "rename", r"store/roots/\w+\.json"),
    ("store.blob.link", "rename", r"store/blobs/../\w+"),
    ("store.manifest.rename", "rename", r"store/artifacts/../\w+\.json"),
    ("store.key.link", "link", r"store/keys/../\w+\.json"),
    ("store.key.unbind", "unlink", r"store/keys/../\w+\.json"),
    ("store.key.forget", "unlink", r"store/keys/../\w+\.json"),
    ("lock.rename", "rename", r"forge\.lock"),
    ("release.rename", "rename", r"local/releases/\w{64}"),
    ("current.flip", "rename", r"local/current"),
    ("history.rename", "rename", r"local/history\.json"),
    ("evidence.rename", "rename", r"local/evidence/.*\.json"),
    ("build.record.rename", "rename", r"local/last-build\.json"),
    ("release.prune", "rename", r"local/releases/\.staging-pruned-\w+"),
    ("release.pruned", "unlink", r"local/in-use/\w{64}"),
)
"""Every change that others see: the point before it, the call, and what is changed (below the home or the spec)."""
BETWEEN = (
    "store.blob.linked",
    "store.key.linked",
    "lock.renamed",
    "release.stage",
    "release.staged",
    "release.renamed",
)
BETWEEN += ("current.flipped",)
"""Points after which nothing new is seen: between a change and the next."""
PRIVATE = re.compile(r"/staging/|/\.staging-[^/]*(/|$)|/\.[^/]*\.tmp$|/digests\.sqlite(-\w+)?$|/logs/[^/]*\.log$")
"""No build looks there: staged files, what SQLite keeps of a memory that may be lost, and logs."""


@dataclass
class Traced:
    """What one process did: the point it passed last, what it synchronised, and what it must still do."""

    point: str | None = None
    used: bool = True
    synced: set[str] = field(default_factory=set)
    owed: dict[str, str] = field(default_factory=dict)


def audit(lines: list[str], trace: Path) -> tuple[list[str], Counter[str]]:
    """What is wrong in a trace of system calls, and how often each step was seen there."""
    wrong: list[str] = []
    seen: Counter[str] = Counter()
    processes: dict[str, Traced] = {}
    for line in lines:
        found = LINE.match(line)
        if found is None:
            continue
        if found[4].startswith("-"):
            if found[2].startswith("link") and "EEXIST" in line:  # somebody was there first: nothing changed
                seen[str(processes[found[1]].point)] += 1
            continue
        call, arguments = found[2].removesuffix("at2").removesuffix("at"), found[3]
        process = processes.setdefault(found[1], Traced())
        opened = OPEN.match(arguments)
        if call == "write":
            if opened is not None and opened[1] == str(trace):
                process.point, process.used = PATHS.findall(arguments)[0].split()[1].removesuffix("\\n"), False
        elif call in ("fsync", "fdatasync"):
            assert opened is not None
            process.synced.add(opened[1])
            for path in [path for path, folder in process.owed.items() if folder == opened[1]]:
                del process.owed[path]
        elif call == "sync" or call == "syncfs":
            wrong.append(f"a whole file system is synchronised: {line}")
        else:
            wrong += _change(process, call, arguments, seen)
    for process in processes.values():
        wrong += [f"the folder of {path} is never synchronised" for path in process.owed]
    return wrong, seen


def _change(process: Traced, call: str, arguments: str, seen: Counter[str]) -> Iterator[str]:
    paths = PATHS.findall(arguments)
    source, target = paths[0], paths[-1]
    folder = re.search(r"\d+<([^>]*)>, \"", arguments)
    if folder is not None and not target.startswith("/"):
        target = f"{folder[1]}/{target}"
    names = [name for name, how, path in STEPS if how == call and re.search(f"/{path}$", target)]
    if not names:
        if not PRIVATE.search(target):
            yield f"a change that no point names: {call} {arguments}"
        return
    if process.used or process.point not in names:
        yield f"{call} of {target} comes after {process.point}, expected {names}"
    process.used = True
    seen[str(process.point)] += 1
    if call in ("rename", "link") and process.point != "release.prune":
        if source not in process.synced and process.point != "current.flip":  # of a symbolic link there is nothing
            yield f"{source} was not synchronised before it became {target}"
        process.owed[target] = str(Path(target).parent)


def traced(site: Site, folder: Path, *arguments: str) -> tuple[list[str], Path]:
    """The system calls of a whole build with one worker."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is not installed: apt install strace")
    calls, trace = folder / "calls", folder / "trace"
    ran = subprocess.run(
        [program, *OPTIONS, str(calls), *site.command("build", "--jobs", "1", *arguments)],
        env={**site.environment(), "TRITONFORGE_TRACE": str(trace)},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    if "ptrace" in ran.stderr and "not permitted" in ran.stderr:
        pytest.skip(f"this user may not trace: {ran.stderr.splitlines()[0]}")
    assert ran.returncode == 0, ran.stderr
    return whole_lines(calls.read_text(errors="replace").splitlines()), trace


def whole_lines(lines: list[str]) -> list[str]:
    """Calls that another process came between, put together at their end."""
    begun: dict[str, str] = {}
    found = []
    for line in lines:
        process, _, rest = line.partition(" ")
        if rest.endswith("<unfinished ...>"):
            begun[process] = line.removesuffix("<unfinished ...>")
        elif (resumed := re.match(r" *<\.\.\. \w+ resumed>", rest)) is not None:
            found.append(begun.pop(process) + rest[resumed.end() :])
        else:
            found.append(line)
    return found


@pytest.mark.parametrize("build", ["first", "second", pytest.param("repair", marks=slow)])
def test_every_durable_system_call_is_a_step_with_a_name(stages: dict[str, Stage], tmp_path: Path, build: str) -> None:
    """Every rename, link and unlink that others can see follows its own point, with nothing between them; what becomes
    visible was synchronised before, and its folder is synchronised after."""
    site = stages[build].before.copy(tmp_path / "site")
    lines, trace = traced(site, tmp_path, *stages[build].arguments)
    wrong, seen = audit(lines, trace)
    assert wrong == []
    assert seen == Counter(
        name for name in POINTS[build] if name not in BETWEEN and name != "release.pruned"
    ) + Counter({"release.pruned": POINTS[build].count("release.pruned")})


def test_every_point_is_before_a_change_or_between_two() -> None:
    assert {name for name, _, _ in STEPS} | set(BETWEEN) == set(FAULT_POINTS)


def test_the_audit_sees_what_is_missing(stages: dict[str, Stage], tmp_path: Path) -> None:
    """A trace from which a point, or a synchronisation, was taken away is wrong."""
    lines, trace = traced(stages["second"].before.copy(tmp_path / "site"), tmp_path)
    for name, expected in (
        ("current.flip", "local/current comes after"),
        ("history.rename", "history.json comes after"),
    ):
        less = [line for line in lines if f" {name}\\n" not in line]
        assert len(less) == len(lines) - 1
        assert expected in " ".join(audit(less, trace)[0])
    unsynced = [line for line in lines if not (" fsync(" in line and "last-build.json" in line)]
    assert len(unsynced) == len(lines) - 1
    assert re.search(r"last-build\.json\S+ was not synchronised before", " ".join(audit(unsynced, trace)[0]))
    folder = [line for line in lines if not re.search(r" fsync\(\d+<[^>]*/build/local>", line)]
    assert "local/current is never synchronised" in " ".join(audit(folder, trace)[0])
