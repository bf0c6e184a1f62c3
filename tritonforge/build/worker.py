"""A worker process: takes tasks as JSON lines on standard input, answers on standard output.

It lives for many tasks, so that a framework is imported once; a crash, a leak or a hang is one failed step. What a
step prints goes to the task's log. The worker dies with the thread that started it, and so with its parent.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import platform
import shutil
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.linking import place_file, take_file
from tritonforge.artifact.sealed import KnownFiles
from tritonforge.artifact.store import LocalStore
from tritonforge.durable import describe_os_error
from tritonforge.errors import CheckFailed, ForgeError, Place
from tritonforge.steps.registry import step
from tritonforge.steps.step import Input, Job

_PR_SET_PDEATHSIG: Final = 1


def main() -> None:
    """Serve tasks until standard input ends."""
    # The parent decides what an interrupt means; programs that a step starts end by SIGTERM as ever.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if sys.argv[1:] and os.getppid() != int(sys.argv[1]):
        return  # it died before the call above
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    devnull = os.open(os.devnull, os.O_RDWR)
    os.dup2(devnull, 1)
    _import(sys.argv[2:])
    for line in sys.stdin:
        task = json.loads(line)
        try:
            answer = _serve(task)
        except OSError as error:  # there is no log: the disk is full, or may not be written
            answer = {"error": describe_os_error(error, f"{task['node']} stopped", Path(task["log"])).to_json()}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _import(names: list[str]) -> None:
    """Import what the first task will need; where that fails, the step tries again, and says in its log why not."""
    saved = os.dup(2)
    os.dup2(1, 2)
    for name in names:
        with suppress(Exception):
            importlib.import_module(name)
    os.dup2(saved, 2)
    os.close(saved)


def _serve(task: dict[str, Any]) -> dict[str, Any]:
    log = Path(task["log"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab", buffering=0) as stream:
        saved = os.dup(1), os.dup(2)
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        try:
            return {"artifact": _run(task)}
        except ForgeError as error:
            with suppress(OSError):  # the log may stand on a disk that is full
                sys.stderr.write(f"{error}\n")
            return {"error": error.to_json()}
        except OSError as error:
            with suppress(OSError):
                traceback.print_exc()
            return {"error": describe_os_error(error, f"{task['node']} stopped", Path(task["store"])).to_json()}
        except Exception as error:
            with suppress(OSError):
                traceback.print_exc()
            failed = CheckFailed(
                f"{task['node']} raised {type(error).__name__}", found=" ".join(str(error).split())[:400]
            )
            return {"error": failed.to_json()}
        finally:
            for printed in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    printed.flush()
            os.dup2(saved[0], 1)
            os.dup2(saved[1], 2)
            os.close(saved[0])
            os.close(saved[1])


def _run(task: dict[str, Any]) -> str:
    store = LocalStore(Path(task["store"]))
    made = step(task["step"])
    started, clock = time.time(), time.monotonic()
    with store.staging() as staging:
        inputs = {}
        for role, digest in task["inputs"].items():
            artifact = store.artifact(digest)
            if artifact is None:
                raise CheckFailed(
                    f"the input '{role}' of {task['node']} is gone from the store", hint="run the build again"
                )
            folder = staging / "inputs" / role
            folder.mkdir(parents=True)
            for path, entry in artifact.files.items():
                place_file(store.blob(entry.sha256), folder / path)
            inputs[role] = Input(artifact, folder)
        out = staging / "out"
        out.mkdir()
        known = KnownFiles()
        sources, real = _private_sources(task, staging, known)
        kept = Path(task["log"]).with_suffix(".failed")
        shutil.rmtree(kept, ignore_errors=True)
        try:
            draft = made.run(Job(task["config"], inputs, sources, out, kept))
        except ForgeError as error:
            if error.place is not None and error.place.file is not None:
                error.place = _lasting(error.place, real, staging, task)
            raise
        provenance = {
            "step": task["step"],
            "step_version": made.version,
            "tools": task["tools"],
            "python": platform.python_version(),
            "machine": platform.machine(),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
            "seconds": round(time.monotonic() - clock, 3),
        }
        facets = task["facets"]
        return store.commit(task["key"], out, draft, facets=facets, provenance=provenance, known=known).digest


def _lasting(place: Place, real: dict[Path | None, Path], staging: Path, task: dict[str, Any]) -> Place | None:
    """A place that is still there when the user reads of it: the source's own file instead of the step's copy."""
    assert place.file is not None
    if place.file in real:
        return Place(real[place.file], place.line, place.field)
    if not place.file.is_relative_to(staging):
        return place
    path = place.file.relative_to(staging).as_posix().removeprefix("out/")
    source = task["sources"].get(path)
    if source is not None:
        return Place(Path(source["path"]), place.line, place.field)
    return None if place.line is None and place.field is None else Place(None, place.line, place.field)


def _private_sources(
    task: dict[str, Any], staging: Path, known: KnownFiles
) -> tuple[dict[str, Path], dict[Path | None, Path]]:
    """Private copies of the sources that are just what the key was made of, and where each came from.

    A large file of a source with `link: true` is no copy: it becomes the store's when the step is done.

    Raises:
        CheckFailed: a source was changed after the key was made.
    """
    sources: dict[str, Path] = {}
    real: dict[Path | None, Path] = {}
    for index, (path, source) in enumerate(task["sources"].items()):
        original = Path(source["path"])
        private = staging / "sources" / str(index) / original.name
        if not take_file(original, private, source["sha256"], seen=source["stamp"], link=source["link"]):
            raise CheckFailed(
                "a source was changed while it was built", place=Place(original), hint="run the build again"
            )
        known.add(private, source["sha256"], theirs=original if private.samefile(original) else None)
        sources[path], real[private] = private, original
    return sources, real


if __name__ == "__main__":
    main()
