from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from build.conftest import Toys
from tritonforge.build.executor import LocalExecutor, Task
from tritonforge.errors import CheckFailed, Interrupted


def task(toys: Toys, text: str, **config: object) -> Task:
    node = toys.node(text, **config)
    key = f"{text:0<64}".encode().hex()[:64]
    return Task(node.id, "toy", node.config, {}, {}, key, str(toys.store.root), str(toys.folder / f"{text}.log"))


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def workers_in(trace: Path) -> list[int]:
    return [int(line.split()[2]) for line in trace.read_text().splitlines()] if trace.exists() else []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_one_worker_lives_for_many_tasks_and_ends_with_the_executor(toys: Toys) -> None:
    executor = LocalExecutor(1)
    for name in "abc":
        assert len(executor.submit(task(toys, name)).result(timeout=30)) == 64
    (pid,) = set(workers_in(toys.trace_file))
    assert alive(pid)
    executor.close()
    assert not alive(pid)


def test_a_worker_that_died_while_idle_is_replaced(toys: Toys) -> None:
    executor = LocalExecutor(1)
    try:
        executor.submit(task(toys, "a")).result(timeout=30)
        first = workers_in(toys.trace_file)[0]
        os.kill(first, signal.SIGKILL)
        assert until(lambda: not alive(first))
        assert executor.submit(task(toys, "b")).result(timeout=30)
    finally:
        executor.close()


def started(executor: LocalExecutor) -> list[int]:
    return [worker.process.pid for worker in executor._all]


def test_a_worker_that_was_expected_has_what_the_steps_import_and_takes_the_first_task(toys: Toys) -> None:
    with LocalExecutor(1) as executor:
        for name in ("notes.txt", "a.onnx", "b.onnx"):
            executor.expect(Path(name))
        (pid,) = started(executor)
        assert until(lambda: "onnxruntime" in Path(f"/proc/{pid}/maps").read_text(), 30)
        executor.submit(task(toys, "a")).result(timeout=30)
        assert set(workers_in(toys.trace_file)) == {pid}
    assert not alive(pid)


def test_a_worker_that_was_expected_for_nothing_ends_at_once(toys: Toys) -> None:
    with LocalExecutor(2) as executor:
        executor.expect(Path("a.onnx"))
        executor.expect(Path("b.onnx"))
        pids = started(executor)
        assert len(pids) == 2
    assert not any(map(alive, pids))
    with pytest.raises(ValueError, match="wrong"), LocalExecutor(2) as executor:
        executor.expect(Path("a.onnx"))
        pids = started(executor)
        raise ValueError("wrong")
    assert not any(map(alive, pids))
    executor.expect(Path("c.onnx"))
    assert not started(executor)


def test_what_cannot_be_imported_ahead_is_the_steps_to_say(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonforge.build.executor._USUAL", {".onnx": ("there_is_no_such_module",)})
    with LocalExecutor(1) as executor:
        executor.expect(Path("a.onnx"))
        executor.submit(task(toys, "a")).result(timeout=30)
        assert set(workers_in(toys.trace_file)) == set(started(executor))


def test_a_step_that_takes_too_long_is_ended_and_the_next_one_has_another_worker(toys: Toys) -> None:
    with LocalExecutor(1) as executor:
        slow = replace(task(toys, "a", sleep=60), timeout_s=1)
        with pytest.raises(CheckFailed, match="took longer than 1 s") as caught:
            executor.submit(slow).result(timeout=30)
        assert "this is the log of a" in caught.value.details
        (pid,) = workers_in(toys.trace_file)
        assert not alive(pid)
        assert executor.submit(task(toys, "b")).result(timeout=30)


def test_the_time_limit_holds_for_a_worker_that_does_not_listen(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps = toys.folder / "sleeps.py"
    sleeps.write_text("import time\ntime.sleep(60)\n")
    monkeypatch.setenv("PYTHONPATH", f"{toys.folder}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setattr("tritonforge.build.executor._USUAL", {".onnx": ("sleeps",)})
    with LocalExecutor(1) as executor:
        executor.expect(Path("a.onnx"))
        large = replace(task(toys, "a"), timeout_s=1, facets={"more than a pipe holds": "x" * (1 << 20)})
        with pytest.raises(CheckFailed, match="took longer than 1 s"):
            executor.submit(large).result(timeout=30)
        assert executor.submit(task(toys, "b")).result(timeout=30)


def test_a_worker_that_cannot_be_started_ahead_is_no_error(toys: Toys, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    with LocalExecutor(1) as executor:
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refused)
            executor.expect(Path("a.onnx"))
        assert not started(executor)
        assert executor.submit(task(toys, "a")).result(timeout=30)


def test_a_step_that_imports_something_else_does_not_wait_for_a_worker_that_imports(toys: Toys) -> None:
    with LocalExecutor(2) as executor:
        executor.expect(Path("a.onnx"))
        executor.submit(task(toys, "plain")).result(timeout=30)
        assert not set(workers_in(toys.trace_file)) & set(started(executor)[:1])
        executor.submit(replace(task(toys, "onnx"), tools={"onnx": "1"})).result(timeout=30)
        assert workers_in(toys.trace_file)[-1] in started(executor)


def test_stopping_ends_what_runs(toys: Toys) -> None:
    executor = LocalExecutor(2)
    futures = [executor.submit(task(toys, name, sleep=60)) for name in "ab"]
    assert until(lambda: len(workers_in(toys.trace_file)) == 2)
    executor.stop()
    assert not any(map(alive, workers_in(toys.trace_file)))
    for future in futures:
        with pytest.raises(Interrupted):
            future.result(timeout=5)
    with pytest.raises((Interrupted, RuntimeError)):
        executor.submit(task(toys, "c")).result(timeout=5)


def test_threads_of_libraries_are_held_back(toys: Toys) -> None:
    executor = LocalExecutor(1)
    try:
        executor.submit(task(toys, "a")).result(timeout=30)
        environment = Path(f"/proc/{workers_in(toys.trace_file)[0]}/environ").read_bytes().split(b"\0")
        assert b"OMP_NUM_THREADS=1" in environment
    finally:
        executor.close()


DRIVER = """
import sys
from pathlib import Path
from tritonforge.actions.build import interruptible
from tritonforge.artifact.store import LocalStore
from tritonforge.build.executor import LocalExecutor
from tritonforge.build.graph import Graph, Node
from tritonforge.build.scheduler import Budget, Schedule, run_graph
folder = Path(sys.argv[1])
nodes = {}
for name, sleep in (("quick", 0), ("slow", 60), ("slower", 60)):
    nodes[name] = Node(f"{name}/toy", name, "toy", {"text": name, "trace": str(folder / "trace"), "sleep": sleep})
executor = LocalExecutor(2)
schedule = Schedule(LocalStore(folder / "home" / "store").open(), executor, Budget(2, 1 << 30), folder / "logs")
try:
    with interruptible():
        run_graph(Graph({node.id: node for node in nodes.values()}), schedule)
except KeyboardInterrupt:
    executor.stop()
    sys.exit(5)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_process_and_what_was_finished(toys: Toys, number: signal.Signals) -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(toys.folder)], start_new_session=True)
    try:
        assert until(lambda: {("start", "slow"), ("start", "slower")} <= set(toys.trace()), 30)
        driver.send_signal(number)
        assert driver.wait(timeout=15) == (-9 if number == signal.SIGKILL else 5)
    finally:
        driver.kill()
        driver.wait()
    pids = workers_in(toys.trace_file)
    assert len(pids) == 4
    assert until(lambda: not any(map(alive, pids)))
    toys.store.sweep_staging()
    assert list((toys.store.root / "staging").iterdir()) == []
    results = toys.run(toys.node("quick", sleep=0), toys.node("after"))
    assert results["quick/toy"].status == "cached"
    assert results["after/toy"].status == "built"


def test_a_worker_whose_parent_is_another_does_nothing() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "tritonforge.build.worker", "1"],
        input="this is no task\n",
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
