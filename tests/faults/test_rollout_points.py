"""At every point of a rollout: kill the command, or cut its connection. No request fails; the next command knows."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults.rollout_site import COMMITTED, POINTS, ROLLOUT, SHIFTED, TARGET, Ran, Site, Witness, ended, open_site
from faults.rollout_table import Row, keep

pytestmark = pytest.mark.live
slow, exhaustive = pytest.mark.slow, pytest.mark.exhaustive

# By default a few that differ most, each tenth with the slow tests, and every one of them by `make faults`.
QUICK_KILLS = {
    "rollout.host.start.after": "deploy",
    "rollout.agent.arm.after": "nothing",
    "rollout.agent.append.done.watch-100.after": "resume",
    "rollout.agent.append.committed.before": "deploy",
    "rollout.agent.append.committed.after": "deploy",
}
ALWAYS = ("rollout.agent.append.committed.after",)
QUICK_CUTS = ("rollout.agent.weigh.after", "rollout.agent.append.committed.after")
SOON = 15
"""Seconds of the dead-man timer where it is waited for: more than a busy machine takes for a step."""
FOLLOW_UPS = ("deploy", "resume", "nothing")


def follow_up(number: int) -> str:
    """What comes after a kill at a point: each of the three in turn."""
    return QUICK_KILLS.get(POINTS[number]) or FOLLOW_UPS[number % 3]


def kills() -> list[object]:
    seen: set[str] = set()
    found = []
    for number, name in enumerate(POINTS):
        quick = name in QUICK_KILLS and name not in seen
        seen.add(name)
        spread = slow if quick or number % 10 == 0 else exhaustive
        found.append(pytest.param(number, id=f"{number + 1}-{name}", marks=() if name in ALWAYS and quick else spread))
    return found


def cuts() -> list[object]:
    names = [(number, name) for number, name in enumerate(POINTS) if name.startswith("rollout.")]
    last = {name: number for number, name in names}
    return [
        pytest.param(
            number,
            id=f"{number + 1}-{name}",
            marks=() if name in QUICK_CUTS and number == last[name] else slow if number % 10 == 5 else exhaustive,
        )
        for number, name in names
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("points")) as site:
        assert site.deploy(2.0).code == 0
        yield site


@pytest.fixture(scope="module")
def clients(site: Site) -> Iterator[Witness]:
    with site.traffic() as traffic:
        traffic.wait_for(20)
        yield Witness(traffic)


@pytest.fixture
def witness(clients: Witness) -> Witness:
    return clients.begin()


def test_the_points_are_those_of_the_trace(site: Site, witness: Witness, tmp_path: Path) -> None:
    other = site.other
    site.forget(other)
    trace = tmp_path / "trace"
    assert site.deploy(other, TRITONFORGE_TRACE=str(trace)).code == 0
    passed = [line.partition(" ")[2] for line in trace.read_text().splitlines()]
    assert passed == list(POINTS)
    assert site.answer() == other
    assert witness.failures == []


def test_whatever_changes_the_target_has_a_point_before_and_after() -> None:
    remote = [name for name in POINTS if name.startswith("rollout.")]
    opened: list[str] = []
    for name in remote:
        call, _, side = name.rpartition(".")
        if side == "before":
            opened.append(call)
        else:
            assert opened.pop() == call
    assert opened == []


AUDIT = """
import atexit, json, os, sys

root, out, argv = sys.argv[1], sys.argv[2], sys.argv[3:]
from tritonforge.rollout import points
from tritonforge.rollout.place import READS

inside, outside, changes = [], [], []


def passed(name):
    if name.endswith(".before"):
        inside.append(name)
    else:
        inside.pop()


def written(event, args):
    if event == "subprocess.Popen":
        words = [str(word) for word in args[1]]
        if any(word.endswith("agent.py") for word in words):
            return None if words[-1] in READS else "agent " + words[-1]
        return None if "-c" in words and "haproxy" in words[0] else "program " + words[0]
    if event in ("os.kill", "os.killpg"):
        return f"{event} {args[1]}"
    if event == "open":
        path, mode, flags = args
        writes = any(letter in (mode or "") for letter in "wax+") or (flags or 0) & (os.O_WRONLY | os.O_RDWR)
        return f"open {path}" if writes and str(path).startswith(root) else None
    if event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.truncate"):
        named = [str(item) for item in args if str(item).startswith(root)]
        return f"{event} {named}" if named else None
    return None


def audit(event, args):
    found = written(event, args)
    if found is not None:
        changes.append(found)
        if not inside:
            outside.append(found)


points.fault_point = passed
sys.addaudithook(audit)
atexit.register(lambda: print(json.dumps({"changes": changes, "outside": outside}), file=open(out, "w")))
from tritonforge.cli.main import run

run(argv)
"""


def test_nothing_changes_the_target_but_between_two_points(site: Site, witness: Witness, tmp_path: Path) -> None:
    """Python's own audit events tell of every file that is written below the target's root, every program that is
    started and every signal that is sent by the command itself."""
    new = site.other
    site.forget(new)
    said = tmp_path / "said"
    spec = str(site.root / "spec" / "forge.yaml")
    arguments = ["deploy", TARGET, "--release", site.releases[new], "--spec", spec, "--json"]
    ran = subprocess.run(
        [sys.executable, "-c", AUDIT, str(site.target_root), str(said), *arguments],
        env=site.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(said.read_text())
    assert found["outside"] == []
    kinds = {change.split()[0] for change in found["changes"]}
    assert {"agent", "program", "open", "os.link"} <= kinds
    assert witness.failures == []


@pytest.mark.parametrize("number", kills())
def test_a_command_that_is_killed(site: Site, witness: Witness, number: int) -> None:
    old, new = site.serving, site.other
    site.forget(new)
    then = follow_up(number)
    site.settings(deadman_s=SOON if then == "nothing" else ROLLOUT["deadman_s"])
    killed = site.deploy(new, TRITONFORGE_FAULT=f"#{number + 1}")
    site.settings(deadman_s=ROLLOUT["deadman_s"])
    assert killed.code == -signal.SIGKILL, killed.words
    committed = number >= COMMITTED
    assert site.serving == (new if committed else old)
    if then == "nothing" and SHIFTED <= number < COMMITTED:
        site.wait_until_reverted()
        assert site.answer() == old
        unfinished = site.state().unfinished
        assert unfinished is not None
        assert unfinished.reverted
        assert "shift-50" in unfinished.done or unfinished.intended == "shift-50"
    elif then == "nothing":
        time.sleep(0.5)
        assert site.answer() == (new if committed else old)
    after = site.deploy(new, *(["--resume"] if then == "resume" else []))
    assert after.code == 0, after.words
    assert site.answer() == new
    site.settled()
    assert witness.failures == []
    assert witness.requests > 0
    _says_what_happened(after, number, then)
    what = {"deploy": "deploy", "resume": "deploy --resume", "nothing": "waits, then deploy"}[then]
    keep(Row("kill", _title(number), "new", killed.code, witness.requests, 0, what, after.code, after.said))


def _says_what_happened(after: Ran, number: int, then: str) -> None:
    begun = POINTS.index("rollout.agent.append.begin.after") <= number
    ended = POINTS.index("rollout.agent.append.finished.after") <= number
    if not begun or ended:
        assert after.answer["notes"][:1] == [] or "vulnerabilities" in after.answer["notes"][0]
    elif number >= COMMITTED:
        assert "was committed by an interrupted command, and was tidied up now" in after.said
    elif then == "resume":
        assert "goes on with rollout" in after.said
    elif then == "nothing" and number >= SHIFTED:
        assert "was reverted by the target's dead-man timer, and was cleared away now" in after.said
    else:
        assert "was interrupted at" in after.said
        assert "was undone now" in after.said


def _title(number: int) -> str:
    return f"{number + 1} {POINTS[number].removeprefix('rollout.')}"


@pytest.mark.parametrize("number", cuts())
def test_a_connection_that_is_lost(site: Site, witness: Witness, number: int) -> None:
    old, new = site.serving, site.other
    site.forget(new)
    cut = site.deploy(new, TRITONFORGE_FAULT=f"#{number + 1}:cut")
    committed = number >= COMMITTED
    serves = new if committed else old
    assert site.serving == serves
    assert site.answer() == serves
    if committed:
        assert cut.code == 0, cut.words
    else:
        assert cut.code == 3, cut.words
        assert "the connection to the target was lost" in cut.said
        begun = number >= POINTS.index("rollout.agent.append.begin.before")
        assert not begun or number <= POINTS.index("rollout.agent.append.begin.after") or "as before" in cut.said
    after = site.deploy(serves)
    assert after.code == 0
    assert after.answer["outcome"] == "unchanged"
    site.settled()
    assert witness.failures == []
    word = "new" if committed else "old"
    keep(Row("cut", _title(number), word, cut.code, witness.requests, 0, "deploy", after.code, cut.said))


@pytest.fixture(scope="module")
def seconds(site: Site) -> float:
    """How long a deployment takes that nothing disturbs, the longer of two: to the other release, and back."""
    took = []
    for _ in range(2):
        began = time.monotonic()
        assert site.deploy(site.other).code == 0
        took.append(time.monotonic() - began)
    return max(took)


@pytest.mark.parametrize("seed", [pytest.param(seed, marks=slow if seed < 5 else exhaustive) for seed in range(100)])
def test_a_command_that_is_killed_at_a_random_time(site: Site, witness: Witness, seconds: float, seed: int) -> None:
    new = site.other
    generator = random.Random(seed)
    if generator.random() < 0.5:
        site.forget(new)
    then = generator.choice(["--resume", "", "nothing"])
    site.settings(deadman_s=SOON if then == "nothing" else ROLLOUT["deadman_s"])
    process = site.start("deploy", TARGET, "--release", site.releases[new])
    try:
        process.wait(generator.uniform(0.3, seconds))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with the agent's process that it waits for, if any
    killed = ended(process)
    site.settings(deadman_s=ROLLOUT["deadman_s"])
    if then == "nothing":
        site.wait_until_reverted()
    after = site.deploy(new, *([then] if then.startswith("-") else []))
    assert after.code == 0, after.words
    assert site.answer() == new
    site.settled()
    assert witness.failures == []
    assert killed.code in (0, -signal.SIGKILL)
    what = {"nothing": "waiting, then deploy", "": "deploy"}.get(then, f"deploy {then}")
    keep(Row("random", str(seed), "new", -signal.SIGKILL, witness.requests, 0, what, after.code, ""))
