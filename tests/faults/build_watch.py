"""A disturbed build, the build after it, and a reader of ``current`` who must never see anything half."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from types import TracebackType

from faults.build_table import Row, keep
from faults.conftest import Site, Stage


class Reader:
    """Looks at ``current`` without a pause, and reads every file that its release names.

    With ``broken`` what is current at first is damaged: only from when it was seen whole it must stay so.
    """

    def __init__(self, site: Site, *, broken: bool = False) -> None:
        self.link = site.build / "current"
        self.problems: list[str] = []
        self.looks = 0
        self._known = not broken and self.link.is_symlink()
        self._broken = broken
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _read(self) -> None:
        while True:
            last = self._done.is_set()
            self._look()
            if last:
                return
            time.sleep(0.003)

    def _look(self) -> None:
        try:
            name = os.readlink(self.link)
        except FileNotFoundError:
            if self._known:
                self.problems.append("current is away")
            return
        wrong = half(self.link.parent / name)
        if wrong is None:
            self._known, self._broken = True, False
            self.looks += 1
        elif os.readlink(self.link) == name and not self._broken:  # else it was replaced, and deleted, meanwhile
            self.problems.append(f"{name}: {wrong}")


def half(release: Path) -> str | None:
    """What is wrong with a release: every file is held against the digest that ``release.json`` has of it."""
    try:
        text = (release / "release.json").read_bytes()
        if hashlib.sha256(text).hexdigest() != release.name:
            return "release.json is not itself"
        document = json.loads(text)
        files = [
            (Path("models") / entry["folder"] / path, content)
            for entry in document["models"]
            for path, content in entry["files"].items()
        ]
        for model, kinds in document["golden"].items():
            for kind, entries in kinds.items():
                files += [(Path("golden") / model / kind / path, content) for path, content in entries.items()]
        for path, content in files:
            if hashlib.sha256((release / path).read_bytes()).hexdigest() != content["sha256"]:
                return f"{path} is another"
    except (OSError, ValueError, KeyError) as error:
        return str(error)
    return None


Disturbance = Callable[[Site], "CompletedProcess[str]"]


def survive(
    stage: Stage,
    site: Site,
    disturb: Disturbance,
    group: str,
    fault: str,
    *,
    mend: Callable[[], object] = lambda: None,
    any_exit: bool = False,
) -> CompletedProcess[str]:
    """Disturb a build of ``site``, mend what was done to its world, build again, and hold it against the undisturbed.

    With ``any_exit`` how the disturbed build ended is not held against the page: it depends on the moment.
    """
    old, wanted = site.build / "current", stage.after.current()
    before = os.readlink(old).removeprefix("releases/") if old.is_symlink() else None
    with Reader(site, broken=stage.broken) as reader:
        ran = disturb(site)
        between = os.readlink(old).removeprefix("releases/") if old.is_symlink() else None
        mend()
        outcome = site.good()
    assert "Traceback" not in ran.stderr, ran.stderr
    assert reader.problems == []
    assert reader.looks > 0
    assert between in (before, wanted), "what is current is the old release or the new one"
    assert outcome["release"] == wanted == site.current()
    same_as_undisturbed(site, stage)
    if before == wanted:
        current = "the release"
    else:
        current = "new" if between == wanted else "none" if before is None else "old"
    keep(
        Row(
            group,
            fault,
            None if any_exit else ran.returncode,
            "any" if any_exit else current,
            0,
            reader.looks,
            said(ran),
        )
    )
    return ran


def same_as_undisturbed(site: Site, stage: Stage) -> None:
    """Byte for byte what builds made that nothing ever disturbed, and nothing besides."""
    assert half((site.build / "current").resolve()) is None
    assert site.files() == stage.after.files()
    assert site.lock == stage.after.lock
    assert site.left_over() == []
    assert [path.name for path in (site.build / "releases").iterdir()] == [stage.after.current()]


def said(ran: CompletedProcess[str]) -> str:
    """The first thing that went wrong, in the words of the command."""
    lines = [line.strip() for line in ran.stderr.splitlines() if line.strip()]
    return next((line for line in lines if "rror" in line), lines[0] if lines else "")
