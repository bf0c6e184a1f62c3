"""`serve` until interrupted, and `infer` from whatever people have at hand."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from cli.commands import Serving, Workshop, errors_said
from making_onnx import batched_add, save, text_in_text_out, two_inputs

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

SPEC = """\
retention: {releases: 1}
models:
  plus: {source: plus.onnx, max_batch_size: 4}
  same: {source: same.onnx, max_batch_size: 4}
  pair: {source: pair.onnx, max_batch_size: 4}
  bytes: {source: bytes.py, inputs: {CONTENT: "BYTES[1]"}, outputs: {SIZE: "INT64[1]"}, max_batch_size: 4}
ensembles:
  chain: {inputs: [x], outputs: [y], steps: [{model: plus}]}
"""
SIZES = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            content = pb_utils.get_input_tensor_by_name(request, "CONTENT").as_numpy()
            sizes = np.array([[len(item)] for item in content.reshape(-1)], dtype=np.int64)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("SIZE", sizes)]))
        return answers
"""


def make(root: Path, runtime: Runtime) -> Workshop:
    made = Workshop.make(root, runtime.root.parent)
    save(made.folder / "plus.onnx", batched_add())
    save(made.folder / "same.onnx", text_in_text_out())
    save(made.folder / "pair.onnx", two_inputs())
    (made.folder / "bytes.py").write_text(SIZES)
    made.write(SPEC)
    made.build()
    return made


@pytest.fixture(scope="module")
def workshop(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = make(tmp_path_factory.mktemp("serve") / "w", runtime)
    (made.folder / "blob.bin").write_bytes(bytes(range(256)) * 1000)
    (made.folder / "input.json").write_text('{"inputs": {"x": [1, 2, 3, 4]}}')
    np.save(made.folder / "x.npy", np.float32([[1, 2, 3, 4], [0, 0, 0, 0]]))
    return made


@pytest.fixture(scope="module")
def served(workshop: Workshop) -> Iterator[Serving]:
    serving = Serving.start(workshop)
    yield serving
    serving.stop()


ASK = {
    "a file's bytes": (["bytes", "blob.bin"], b"", {"SIZE": [256_000]}),
    "a text": (["same", "Grüße"], b"", {"SAME": ["Grüße"]}),
    "a text that looks like an option": (["same", "--", "-x"], b"", {"SAME": ["-x"]}),
    "an empty text": (["same", ""], b"", {"SAME": [""]}),
    "standard input": (["bytes", "-"], b"\x00\xff" * 5000, {"SIZE": [10_000]}),
    "JSON": (["plus", '{"x": [1, 2, 3, 4]}'], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "JSON as the protocol has it": (["plus", '{"inputs": {"x": [1, 2, 3, 4]}}'], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "a JSON file": (["plus", "input.json"], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "a list": (["plus", "[1, 2, 3, 4]"], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "a batch": (["plus", "[[1, 2, 3, 4], [0, 0, 0, 0]]"], b"", {"y": [[2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 1.0]]}),
    "an array": (["plus", "x.npy"], b"", {"y": [[2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 1.0]]}),
    "several inputs": (["pair", "--input", "a=[1,2]", "--input", "b=[10,20]"], b"", {"y": [11.0, 22.0]}),
    "an ensemble": (["chain", "[1, 2, 3, 4]"], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "over gRPC": (["chain", "[1, 2, 3, 4]", "--protocol", "grpc"], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
    "a version": (["plus", "[1, 2, 3, 4]", "--version", "1"], b"", {"y": [2.0, 3.0, 4.0, 5.0]}),
}


@pytest.mark.parametrize("how", ASK)
def test_infer_takes(workshop: Workshop, served: Serving, how: str) -> None:
    (words, stdin, outputs) = ASK[how]
    position = words.index("--") if "--" in words else len(words)
    answer = workshop.run("infer", *words[:position], "--json", *words[position:], stdin=stdin)
    assert answer.code == 0, answer.err
    assert answer.json["outputs"] == outputs
    assert answer.err == "", "the running server is asked; none is started"


def test_infer_is_readable_without_json(workshop: Workshop, served: Serving) -> None:
    assert workshop.run("infer", "plus", "[1, 2, 3, 4]").out == "y: [2, 3, 4, 5]\n"
    assert workshop.run("infer", "same", "hello").out == "SAME: hello\n"


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_infer_asks_any_server_by_its_url_without_a_spec(
    workshop: Workshop, served: Serving, tmp_path: Path, scheme: str
) -> None:
    url = f"{scheme}://{getattr(served, scheme)}"
    answer = workshop.json("infer", "plus", "[1, 2, 3, 4]", "--server", url, cwd=tmp_path)
    assert answer["outputs"] == {"y": [2.0, 3.0, 4.0, 5.0]}


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["plsu", "[1]"], "did you mean 'plus'"),
        (["plus", "[1, 2, 3]"], "[-1, 4]"),
        (["plus", "[1, 2, 3, 4, 5]"], "[-1, 4]"),
        (["plus", "word"], "x"),
        (["plus"], "needs a value for x"),
        (["plus", '{"z": [1]}'], "has no input 'z'"),
        (["plus", '{"x": [1'], "JSON"),
        (["plus", '["a", "b", "c", "d"]'], "x"),
        (["plus", "[[1, 2], [3]]"], "x"),
        (["pair", "[1, 2]"], "several inputs"),
        (["pair", "--input", "a"], "NAME=VALUE"),
        (["pair", "--input", "c=[1,2]"], "has no input 'c'"),
        (["plus", "[1, 2, 3, 4]", "--version", "9"], "9"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_does_not_fit_is_refused_clearly(workshop: Workshop, served: Serving, words: list[str], says: str) -> None:
    done = workshop.run("infer", *words)
    assert done.code in (1, 2), done.err
    assert done.code == 2 or "--version" in words
    assert errors_said(done.err) == 1, done.err
    assert says in done.err
    assert "Traceback" not in done.err


def test_a_batch_that_is_too_large_is_refused_in_the_servers_words(workshop: Workshop, served: Serving) -> None:
    done = workshop.run("infer", "plus", json.dumps([[0] * 4] * 5))
    assert done.code == 1
    assert "batch-size" in done.err


def test_what_is_served_stays_whole_while_newer_releases_prune(workshop: Workshop, served: Serving) -> None:
    release = json.loads(served.state.read_bytes())["release"]
    files = {path: path.stat().st_size for path in (workshop.folder / "build/local/releases" / release).rglob("*")}
    for addend in (2.0, 3.0):
        save(workshop.folder / "plus.onnx", batched_add(addend))
        assert workshop.build()["new"] is True
    workshop.run("cache", "gc")
    assert workshop.releases() == {release, workshop.current()}, "one is kept by the spec, one because it is in use"
    assert {path: path.stat().st_size for path in files} == files
    assert workshop.json("infer", "plus", "[1, 2, 3, 4]")["outputs"] == {"y": [2.0, 3.0, 4.0, 5.0]}
    shown = workshop.json("release", "show", release[:10])
    assert shown["current"] is False


def descendants(serving: Serving) -> list[psutil.Process]:
    return psutil.Process(serving.process.pid).children(recursive=True)


@pytest.fixture
def alone(workshop: Workshop, tmp_path: Path) -> Workshop:
    """A copy that nobody serves yet."""
    made = workshop.copy(tmp_path / "alone")
    (made.folder / "build/local/serving.json").unlink(missing_ok=True)
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_serve_ends_with_every_child_gone(alone: Workshop, number: signal.Signals) -> None:
    with Serving.start(alone) as serving:
        children = descendants(serving)
        assert any(child.name() == "tritonserver" for child in children)
        assert serving.stop(number) == 0
    assert [child for child in children if child.is_running()] == []
    assert not serving.state.exists()
    said = (alone.folder.parent / "serve.err").read_text()
    assert said.endswith("stopped\n")
    assert errors_said(said) == 0


def test_a_killed_serve_takes_its_server_along_and_is_not_asked_any_more(alone: Workshop) -> None:
    with Serving.start(alone) as serving:
        children = descendants(serving)
        assert serving.stop(signal.SIGKILL) == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=45)
    assert alive == []
    assert serving.state.exists(), "nobody was left to remove it"
    done = alone.run("infer", "same", "hello")
    assert (done.code, done.out) == (0, "SAME: hello\n")
    assert "one is started for this request" in done.err


def test_serve_says_so_when_its_server_dies(alone: Workshop) -> None:
    with Serving.start(alone) as serving:
        next(child for child in descendants(serving) if child.name() == "tritonserver").kill()
        assert serving.process.wait(30) == 1
    said = (alone.folder.parent / "serve.err").read_text()
    assert errors_said(said) == 1
    assert "the server ended by itself" in said
    assert not serving.state.exists()


@pytest.mark.slow
def test_of_two_serves_each_removes_only_its_own_state(alone: Workshop) -> None:
    with Serving.start(alone) as first, Serving.start(alone) as second:
        assert first.stop() == 0
        assert json.loads(second.state.read_bytes())["pid"] == second.process.pid
        assert alone.json("infer", "plus", "[1, 2, 3, 4]")["server"] == f"http://{second.http}"
    assert not second.state.exists()


@pytest.mark.parametrize(
    "name", [*(pytest.param(name, marks=pytest.mark.slow) for name in ("with space", "ünïcode")), "$(touch owned);'"]
)
def test_a_release_is_served_from_any_path(alone: Workshop, tmp_path: Path, name: str) -> None:
    made = Workshop((alone.folder.parent / name), alone.home)
    alone.folder.rename(made.folder)
    with Serving.start(made):
        assert made.json("infer", "chain", "[1, 2, 3, 4]")["model"] == "chain"
        assert made.json("infer", "bytes", "hello")["outputs"] == {"SIZE": [5]}
    assert not list(tmp_path.rglob("owned"))
