"""The lock of a target: who may take it over, and who not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import EnvironmentLacks, ExitCode, UsageError
from tritonforge.rollout import lock as lock_module
from tritonforge.rollout.lock import describe_holder, holder_here, is_gone, target_lock
from tritonforge.rollout.place import LocalPlace
from tritonforge.rollout.processes import started_at


@pytest.fixture
def place(tmp_path: Path) -> LocalPlace:
    return LocalPlace(tmp_path / "root")


def dead_process() -> tuple[int, str]:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = started_at(child.pid)
    child.kill()
    child.wait()
    return child.pid, str(started)


def held_by(place: LocalPlace, **changes: Any) -> None:
    place.call("lock", {"token": "theirs", "holder": {**holder_here("a deploy"), **changes}})


def test_the_holder_is_this_process(place: LocalPlace) -> None:
    with target_lock(place, "deploy abc") as token:
        held = place.call("read")["lock"]
        assert (held["pid"], held["for"], held["started"]) == (os.getpid(), "deploy abc", started_at(os.getpid()))
        assert token not in str(held)
        assert not is_gone(held)
    assert place.call("read")["lock"] is None


def test_a_second_command_is_told_whose_it_is(place: LocalPlace) -> None:
    with target_lock(place, "deploy abc"):
        with pytest.raises(EnvironmentLacks) as caught, target_lock(place, "rollback"):
            pass
        error = caught.value
        assert error.exit_code is ExitCode.ENVIRONMENT
        assert f"(process {os.getpid()})" in str(error.found)
        assert "for deploy abc" in str(error.found)
        assert "tritonforge unlock TARGET --break" in str(error.hint)
        assert place.call("read")["lock"]["for"] == "deploy abc"


def test_a_process_that_ended_has_no_lock(place: LocalPlace) -> None:
    pid, started = dead_process()
    held_by(place, pid=pid, started=started)
    with target_lock(place, "deploy"):
        assert place.call("read")["lock"]["pid"] == os.getpid()


def test_a_later_process_with_its_number_is_not_it(place: LocalPlace) -> None:
    held_by(place, pid=os.getpid(), started="1")
    with target_lock(place, "deploy"):
        pass


def test_after_a_restart_of_this_machine_its_locks_are_gone(place: LocalPlace) -> None:
    machine, _, _ = lock_module._machine().rpartition("/")
    held_by(place, machine=f"{machine}/another-boot")
    with target_lock(place, "deploy"):
        pass


def test_nothing_is_known_of_processes_of_another_machine(place: LocalPlace) -> None:
    pid, started = dead_process()
    _, _, boot = lock_module._machine().rpartition("/")
    held_by(place, machine=f"elsewhere-1/{boot}", pid=pid, started=started, who="ann@elsewhere")
    with pytest.raises(EnvironmentLacks, match="another command is at work") as caught, target_lock(place, "deploy"):
        pass
    assert "ann@elsewhere" in str(caught.value.found)


def test_a_lock_that_was_lost_meanwhile_stays_whoevers_it_is(place: LocalPlace) -> None:
    with target_lock(place, "deploy"):
        place.call("unlock", {"instead": place.call("read")["lock"]["id"]})
        held_by(place, **{"for": "another"})
    assert place.call("read")["lock"]["for"] == "another"


def test_it_is_let_go_of_after_an_error(place: LocalPlace) -> None:
    with pytest.raises(UsageError), target_lock(place, "deploy"):
        raise UsageError("no")
    assert place.call("read")["lock"] is None


def test_words() -> None:
    holder = {"who": "ann@lab", "pid": 7, "since": "2026-01-01T00:00:00Z", "for": "deploy abc", "token": "secret"}
    assert describe_holder(holder) == "ann@lab (process 7), since 2026-01-01T00:00:00Z, for deploy abc"
