"""Every bad input ends in one clear error with the right exit code; nothing is half-written, others are unharmed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from making_onnx import FLOAT, INT64, batched_add, model, save, value
from onnx import helper

from cli.commands import Outcome, Workshop, errors_said

GOOD = "models:\n  good: {source: good.onnx, max_batch_size: 4}\n"
FRESH = GOOD + "  fresh: {source: fresh.onnx, max_batch_size: 2}\n"


def _identity(kind: int) -> bytes:
    node = helper.make_node("Identity", ["y"], ["z"])
    return model([node], [value("y", ["N", 4], kind)], [value("z", ["N", 4], kind)]).SerializeToString()


def _truncated(folder: Path) -> None:
    data = save(folder / "bad.onnx", batched_add()).read_bytes()
    (folder / "bad.onnx").write_bytes(data[: len(data) // 2])


def _opset(number: int) -> Callable[[Path], None]:
    def prepare(folder: Path) -> None:
        made = batched_add()
        made.opset_import[0].version = number
        save(folder / "bad.onnx", made)

    return prepare


PAIR = "  integers: {source: integers.onnx, max_batch_size: 2}\nensembles:\n"
"""`fresh` makes FP32, `integers` takes INT64: they cannot be wired."""


@dataclass(frozen=True)
class Bad:
    """What is added to a spec whose other models are good, and what the one error says of it."""

    spec: str
    code: int
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    nothing_ran: bool = False
    """The spec itself is wrong, so that not even the good models are built."""


CASES = {
    "missing file": Bad("  bad: {source: gone.onnx}\n", 2, ("forge.yaml:6", "models.bad.source", "gone.onnx")),
    "truncated": Bad(
        "  bad: {source: bad.onnx}\n", 1, ("bad.onnx", "truncated or not ONNX", "hint: export it again"), _truncated
    ),
    "empty": Bad(
        "  bad: {source: bad.onnx}\n", 1, ("bad.onnx is empty",), lambda folder: (folder / "bad.onnx").write_bytes(b"")
    ),
    "not ONNX": Bad(
        "  bad: {source: bad.onnx}\n",
        1,
        ("bad.onnx", "truncated or not ONNX"),
        lambda folder: (folder / "bad.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" * 50),
    ),
    "old opset": Bad("  bad: {source: bad.onnx}\n", 1, ("bad.onnx", "opset", "3"), _opset(3)),
    "future opset": Bad("  bad: {source: bad.onnx}\n", 1, ("bad.onnx", "opset", "999"), _opset(999)),
    "wrong type in a wiring": Bad(
        PAIR + "  wired:\n    inputs: [x]\n    outputs: [z]\n    steps: [{model: fresh}, {model: integers}]\n",
        2,
        ("forge.yaml", "ensembles.wired.steps", "FP32", "INT64"),
        lambda folder: (folder / "integers.onnx").write_bytes(_identity(INT64)),
    ),
    "wrong shape in a wiring": Bad(
        PAIR + "  wired:\n    inputs: [x]\n    outputs: [z]\n    steps: [{model: fresh}, {model: integers}]\n",
        2,
        ("forge.yaml", "ensembles.wired.steps", "4", "5"),
        lambda folder: save(
            folder / "integers.onnx",
            model(
                [helper.make_node("Identity", ["y"], ["z"])],
                [value("y", ["N", 5], FLOAT)],
                [value("z", ["N", 5], FLOAT)],
            ),
        ),
    ),
    "unknown member": Bad(
        "ensembles:\n  wired: {inputs: [x], outputs: [y], steps: [{model: frehs}]}\n",
        2,
        ("ensembles.wired.steps[0].model", "did you mean 'fresh'"),
        nothing_ran=True,
    ),
    "cycle of ensembles": Bad(
        "ensembles:\n"
        "  one: {inputs: [x], outputs: [y], steps: [{model: two}]}\n"
        "  two: {inputs: [x], outputs: [y], steps: [{model: one}]}\n",
        2,
        ("forge.yaml", "one", "two", "circle"),
    ),
    "version taken": Bad(
        "  bad: {source: bad.onnx, folder: good, version: 1}\n",
        2,
        ("forge.yaml:6", "models.bad", "good"),
        lambda folder: save(folder / "bad.onnx", batched_add(7.0)),
    ),
    "backend of another format": Bad(
        "  bad: {source: fresh.onnx, backend: python}\n", 2, ("forge.yaml:6", "models.bad.backend", "onnxruntime")
    ),
    "unknown key": Bad(
        "  bad: {source: fresh.onnx, max_batchsize: 3}\n",
        2,
        ("forge.yaml:6", "did you mean 'max_batch_size'"),
        nothing_ran=True,
    ),
    "unknown config field": Bad(
        "  bad: {source: fresh.onnx, config: {dynamic_batchin: {}}}\n",
        2,
        ("forge.yaml:6", "models.bad.config", "dynamic_batching"),
    ),
    "python model without execute": Bad(
        "  bad: {source: bad.py, inputs: {A: 'FP32[1]'}, outputs: {B: 'FP32[1]'}}\n",
        1,
        ("bad.py", "execute"),
        lambda folder: (folder / "bad.py").write_text("class TritonPythonModel:\n    pass\n"),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_bad_input_is_one_clear_error_and_harms_nothing_else(built: Workshop, name: str) -> None:
    case = CASES[name]
    before, releases = built.current(), built.releases()
    save(built.folder / "fresh.onnx", batched_add(2.0))
    case.prepare(built.folder)
    built.write(FRESH + case.spec)

    done = built.run("build")
    assert_one_error(done, case.code, case.says)
    assert (built.current(), built.releases(), built.leftovers()) == (before, releases, [])

    built.write(FRESH)
    after = built.build()
    fresh = {node["id"]: node["status"] for node in after["nodes"] if node["id"].startswith("fresh/")}
    assert after["new"] is True
    assert set(fresh.values()) == {"built" if case.nothing_ran else "cached"}


@pytest.mark.parametrize("name", ["missing file", "truncated", "unknown key", "cycle of ensembles"])
def test_an_error_is_one_json_object_with_its_exit_code(built: Workshop, name: str) -> None:
    case = CASES[name]
    save(built.folder / "fresh.onnx", batched_add(2.0))
    case.prepare(built.folder)
    built.write(FRESH + case.spec)
    done = built.run("build", "--json")
    said = done.json
    failures = [item for platform in said.get("platforms", []) for item in platform["failures"]] or [said]
    assert (done.code, [item["exit_code"] for item in failures]) == (case.code, [case.code])
    assert failures[0]["message"]
    assert failures[0]["file"]


def test_a_version_number_that_is_taken_is_refused_by_its_place(built: Workshop) -> None:
    before = built.current()
    save(built.folder / "good.onnx", batched_add(9.0))
    built.write("models:\n  good: {source: good.onnx, max_batch_size: 4, version: 1}\n")
    done = built.run("build")
    assert_one_error(done, 2, ("forge.yaml:4", "models.good.version", "version 1", "hint"))
    assert (built.current(), built.leftovers()) == (before, [])

    built.write("models:\n  good: {source: good.onnx, max_batch_size: 4, version: 7}\n")
    assert built.build()["new"] is True
    assert built.published()["good"]["version"] == 7


@pytest.mark.parametrize("where", ["build", "store"])
def test_a_read_only_folder_is_named(built: Workshop, where: str) -> None:
    before, releases = built.current(), built.releases()
    save(built.folder / "fresh.onnx", batched_add(2.0))
    built.write(FRESH)
    folder = built.folder / "build" if where == "build" else built.home / "store"
    with read_only(folder):
        done = built.run("build")
        shown = built.run("release", "show")
    assert_one_error(done, 3, (str(folder), "read-only", "hint"))
    assert (built.current(), built.releases(), built.leftovers()) == (before, releases, [])
    assert shown.code == 0, "reading needs no writing"
    assert built.build()["new"] is True


@pytest.mark.parametrize("where", ["build", "home"])
def test_a_full_disk_is_named_and_leaves_the_old_release(built: Workshop, tmp_path: Path, where: str) -> None:
    before = built.current()
    folder = built.folder / "build" if where == "build" else built.home
    with small_disk(folder, tmp_path / "kept", 1 << 20):
        weights = helper.make_tensor("c", FLOAT, [4], [1.0] * 4)
        node = helper.make_node("Add", ["x", "c"], ["y"])
        big = model([node], [value("x", ["N", 4])], [value("y", ["N", 4])], [weights])
        big.doc_string = "x" * (2 << 20)
        save(built.folder / "fresh.onnx", big)
        built.write(FRESH)
        done = built.run("build")
        assert_one_error(done, 3, ("No space left on device", "free some space"))
        assert (built.current(), built.leftovers()) == (before, [])
        save(built.folder / "fresh.onnx", batched_add(2.0))
        assert built.build()["new"] is True, "with less to write it goes on"


def assert_one_error(done: Outcome, code: int, says: tuple[str, ...]) -> None:
    assert done.code == code, done.err
    assert errors_said(done.err) == 1, done.err
    assert "Traceback" not in done.out + done.err
    for text in says:
        assert text in done.err, f"{text!r} is not in\n{done.err}"


def _mount(*words: str) -> None:
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"this user may not mount: {done.stderr.strip()}")


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """The folder through a read-only mount: root ignores permissions."""
    _mount("--bind", str(folder), str(folder))
    try:
        _mount("-o", "remount,bind,ro", str(folder))
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def small_disk(folder: Path, kept: Path, size: int) -> Iterator[None]:
    """The folder, with what it holds, on a disk of ``size`` bytes."""
    subprocess.run(["cp", "-a", str(folder), str(kept)], check=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "none", str(folder))
    try:
        subprocess.run(["cp", "-a", f"{kept}/.", str(folder)], check=True)
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)
