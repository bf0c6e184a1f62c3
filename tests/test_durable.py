from __future__ import annotations

import collections
import ctypes
import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import tritonforge
from tritonforge import durable
from tritonforge.actions.hand_over import OUTPUT_FAULTS
from tritonforge.artifact.remote.transfer import REMOTE_FAULTS
from tritonforge.durable import (
    FAULT_POINTS,
    disk_errors,
    each_at_once,
    exchange,
    fault_point,
    folder_lock,
    point_link,
    write_atomic,
    write_json,
)
from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.repository.bundle import BUNDLE_FAULTS


def run_python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **environment},
    )


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_every_fault_point_is_used_and_every_used_one_is_listed() -> None:
    source = Path(tritonforge.__file__).parent
    text = "\n".join(path.read_text(encoding="utf-8") for path in source.rglob("*.py"))
    used = re.findall(r"(?:fault_point\(|before=|after=)\"([a-z.]+)\"", text)
    known = (*FAULT_POINTS, *BUNDLE_FAULTS, *OUTPUT_FAULTS, *REMOTE_FAULTS)
    assert sorted(set(used)) == sorted(known)
    assert len(used) == len(known), "each name marks one step"


def test_a_fault_point_does_nothing_unless_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITONFORGE_FAULT", "lock.rename:enospc")
    fault_point("lock.renamed")
    with pytest.raises(OSError, match=r"lock\.rename") as raised:
        fault_point("lock.rename")
    assert raised.value.errno == errno.ENOSPC


def test_a_fault_may_wait_for_a_later_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(durable, "_times", collections.defaultdict(lambda: itertools.count(1)))
    monkeypatch.setenv("TRITONFORGE_FAULT", "lock.rename#3:enospc")
    fault_point("lock.rename")
    fault_point("lock.renamed")
    fault_point("lock.rename")
    with pytest.raises(OSError, match=r"lock\.rename"):
        fault_point("lock.rename")


def test_a_lock_on_a_full_disk_holds_and_names_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with (
            folder_lock(tmp_path / ".lock"),
            pytest.raises(EnvironmentLacks, match="in use by another process"),
            folder_lock(tmp_path / ".lock", wait=False),
        ):
            pass


def test_a_fault_point_kills_at_once() -> None:
    ran = run_python(
        "from tritonforge.durable import fault_point\nfault_point('lock.rename')\nprint('alive')",
        TRITONFORGE_FAULT="lock.rename",
    )
    assert (ran.returncode, ran.stdout) == (-signal.SIGKILL, "")


class TestWriteAtomic:
    def test_it_makes_folders_and_replaces(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "er" / "file"
        write_atomic(path, b"one")
        write_atomic(path, b"two")
        assert path.read_bytes() == b"two"
        assert path.stat().st_mode & 0o777 == 0o644
        assert [item.name for item in path.parent.iterdir()] == ["file"]

    def test_json_is_sorted_and_readable(self, tmp_path: Path) -> None:
        write_json(tmp_path / "f", {"b": 1, "a": "ü"})
        assert (tmp_path / "f").read_text(encoding="utf-8") == '{\n  "a": "ü",\n  "b": 1\n}\n'

    def test_a_full_disk_leaves_the_old_file_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        write_atomic(path, b"old")
        monkeypatch.setenv("TRITONFORGE_FAULT", "lock.rename:enospc")
        with pytest.raises(OSError, match=r"lock\.rename"):
            write_atomic(path, b"new", before="lock.rename")
        assert path.read_bytes() == b"old"
        assert hidden(tmp_path) == []

    def test_what_a_killed_writer_staged_goes_with_the_next_write(self, tmp_path: Path) -> None:
        code = (
            "import sys; from pathlib import Path; from tritonforge.durable import write_atomic\n"
            "write_atomic(Path(sys.argv[1]), b'never', before='lock.rename')"
        )
        path = tmp_path / "file"
        ran = run_python(code, path, TRITONFORGE_FAULT="lock.rename")
        assert ran.returncode == -signal.SIGKILL
        assert not path.exists()
        assert len(hidden(tmp_path)) == 1
        write_atomic(path, b"now")
        assert path.read_bytes() == b"now"
        assert hidden(tmp_path) == []

    def test_what_living_or_foreign_writers_staged_stays(self, tmp_path: Path) -> None:
        here = durable._here()
        living = tmp_path / f".file.{here}.{os.getpid()}-x.tmp"
        foreign = tmp_path / ".file.elsewhere.999999999-x.tmp"
        other = tmp_path / f".file2.{here}.999999999-x.tmp"
        for staged in (living, foreign, other):
            staged.write_bytes(b"staged")
        write_atomic(tmp_path / "file", b"now")
        assert {item.name for item in (living, foreign, other)} == set(hidden(tmp_path))


class TestEachAtOnce:
    def test_everything_is_done(self) -> None:
        done: list[int] = []
        each_at_once(done.append, range(100))
        assert sorted(done) == list(range(100))

    def test_what_fails_is_raised_when_nothing_is_under_way_any_more(self) -> None:
        running: set[int] = set()

        def do(number: int) -> None:
            running.add(number)
            if number == 3:
                raise OSError(errno.ENOSPC, "full")
            time.sleep(0.05)
            running.remove(number)

        with pytest.raises(OSError, match="full"):
            each_at_once(do, range(1000))
        assert running == {3}


class TestLinksAndFolders:
    def test_a_link_is_flipped_in_one_rename(self, tmp_path: Path) -> None:
        link = tmp_path / "current"
        point_link(link, "releases/a")
        point_link(link, "releases/b")
        assert str(link.readlink()) == "releases/b"
        assert hidden(tmp_path) == []

    def test_a_full_disk_leaves_the_link_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        link = tmp_path / "current"
        point_link(link, "a")
        monkeypatch.setenv("TRITONFORGE_FAULT", "current.flip:enospc")
        with pytest.raises(OSError, match=r"current\.flip"):
            point_link(link, "b")
        assert str(link.readlink()) == "a"
        assert hidden(tmp_path) == []

    @pytest.mark.parametrize("kernel_can", [True, False])
    def test_two_folders_swap(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel_can: bool) -> None:
        for name in ("new", "old"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text(name)
        if not kernel_can:
            monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
        exchange(tmp_path / "new", tmp_path / "old")
        assert (tmp_path / "old" / "file").read_text() == "new"
        assert (tmp_path / "new" / "file").read_text() == "old"
        assert len(list(tmp_path.iterdir())) == 2


HOLDER = """
import sys
from pathlib import Path
from tritonforge.durable import folder_lock
with folder_lock(Path(sys.argv[1]), shared=sys.argv[2] == "shared"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> object:
    started: list[subprocess.Popen[str]] = []

    def hold(how: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path / ".lock"), how],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


class TestFolderLock:
    def test_who_does_not_wait_is_told_who_holds_it(self, tmp_path: Path, holder: object) -> None:
        process = holder("alone")  # type: ignore[operator]
        with (
            pytest.raises(EnvironmentLacks, match=f"in use by process {process.pid} on "),
            folder_lock(tmp_path / ".lock", wait=False),
        ):
            pytest.fail("two held it")

    def test_who_waits_is_told_once_and_gets_it_when_the_holder_dies(self, tmp_path: Path, holder: object) -> None:
        process = holder("alone")  # type: ignore[operator]
        told: list[str] = []

        def notify(text: str) -> None:
            told.append(text)
            os.kill(process.pid, signal.SIGKILL)

        with folder_lock(tmp_path / ".lock", notify=notify):
            assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
        assert len(told) == 1
        assert str(process.pid) in told[0]

    def test_shared_holders_share_and_keep_a_single_one_out(self, tmp_path: Path, holder: object) -> None:
        holder("shared")  # type: ignore[operator]
        with folder_lock(tmp_path / ".lock", shared=True, wait=False):
            pass
        with (
            pytest.raises(EnvironmentLacks, match="in use by another process"),
            folder_lock(tmp_path / ".lock", wait=False),
        ):
            pytest.fail("held beside a shared one")

    def test_an_earlier_holder_is_not_blamed(self, tmp_path: Path, holder: object) -> None:
        with folder_lock(tmp_path / ".lock"):
            pass
        holder("shared")  # type: ignore[operator]
        with (
            pytest.raises(EnvironmentLacks) as raised,
            folder_lock(tmp_path / ".lock", wait=False),
        ):
            pytest.fail("held beside a shared one")
        assert str(os.getpid()) not in raised.value.message

    def test_a_place_that_cannot_be_locked_is_an_environment_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(EnvironmentLacks, match="cannot lock"), folder_lock(tmp_path / "file" / "x" / ".lock"):
            pytest.fail("locked below a file")

    def test_errors_of_what_runs_under_the_lock_are_not_the_locks(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError), folder_lock(tmp_path / ".lock"):
            (tmp_path / "missing").read_bytes()


class TestDiskErrors:
    @pytest.mark.parametrize(
        ("number", "hint"),
        [
            (errno.ENOSPC, "cache gc"),
            (errno.EROFS, "read-only"),
            (errno.EACCES, "permissions"),
            (errno.EDQUOT, "quota"),
        ],
    )
    def test_they_say_what_where_and_what_to_do(self, tmp_path: Path, number: int, hint: str) -> None:
        with pytest.raises(EnvironmentLacks) as raised, disk_errors("cannot keep it", tmp_path):
            raise OSError(number, os.strerror(number))
        assert raised.value.message == f"cannot keep it: {os.strerror(number)}"
        assert raised.value.found == str(tmp_path)
        assert hint in str(raised.value.hint)

    def test_the_file_that_failed_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(EnvironmentLacks) as raised, disk_errors("x", Path("elsewhere")):
            (tmp_path / "no").read_bytes()
        assert raised.value.found == str(tmp_path / "no")

    def test_clear_errors_pass_through(self, tmp_path: Path) -> None:
        with pytest.raises(CheckFailed, match="mine"), disk_errors("x", tmp_path):
            raise CheckFailed("mine")
