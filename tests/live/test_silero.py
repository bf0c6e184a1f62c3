"""silero-vad, served in chunks with sequence batching, gives the package's own probabilities, stream by stream."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cli.commands import Serving, Workshop

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live
torch = pytest.importorskip("torch")

REPOSITORY = Path(__file__).parents[2] / "repositories" / "speech"
TOLERANCE = 1e-5


def module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)
    return made


vowels = module("vowels", REPOSITORY / "samples" / "vowels.py")


@pytest.fixture(scope="module")
def demo(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A copy of the demo's repository, built from nothing."""
    made = Workshop.make(tmp_path_factory.mktemp("demo") / "w", runtime.root.parent)
    shutil.copytree(REPOSITORY, made.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build"))
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def package(demo: Workshop) -> Callable[[np.ndarray], list[float]]:
    """The probabilities that the package's own wrapper gives a stream, from its own wheel."""
    (wheel,) = demo.home.rglob("silero_vad-*.whl")
    folder = wheel.parent / "unpacked"
    shutil.unpack_archive(wheel, folder, "zip")
    wrapper: Any = module("silero_utils", folder / "silero_vad" / "utils_vad.py")
    model = wrapper.OnnxWrapper(str(folder / "silero_vad" / "data" / "silero_vad.onnx"))

    def probabilities(signal: np.ndarray) -> list[float]:
        model.reset_states()
        return [float(model(torch.from_numpy(chunk.copy()), 16000)) for chunk in vowels.chunks(signal)]

    return probabilities


@pytest.fixture(scope="module")
def served(demo: Workshop) -> Iterator[Serving]:
    serving = Serving.start(demo)
    yield serving
    assert serving.stop() == 0


def streams() -> list[np.ndarray]:
    """Two voices, one of them in noise, silence with noise, and a tone, of unequal lengths."""
    rng = np.random.default_rng(5)
    voice, other = vowels.voice(2.0, 0), vowels.voice(1.5, 7)
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(12000) / vowels.RATE)
    return [
        voice,
        (other + 0.02 * rng.standard_normal(len(other))).astype(np.float32),
        (0.05 * rng.standard_normal(20000)).astype(np.float32),
        tone.astype(np.float32),
    ]


class Stream:
    """One stream, with the vendor's client and nothing of ours: it sends nothing but chunks."""

    def __init__(self, served: Serving, protocol: str, number: int | str) -> None:
        self.module = getattr(tritonclient, protocol)
        self.client = self.module.InferenceServerClient(getattr(served, protocol))
        self.number = number

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def send(self, chunk: np.ndarray, *, start: bool = False, end: bool = False) -> float:
        tensor = self.module.InferInput("input", [1, 512], "FP32")
        tensor.set_data_from_numpy(chunk.reshape(1, 512))
        flags = {"sequence_id": self.number, "sequence_start": start, "sequence_end": end}
        return float(self.client.infer("speech", [tensor], **flags).as_numpy("output")[0, 0])


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_interleaved_streams_have_the_packages_probabilities(
    served: Serving,
    package: Callable[[np.ndarray], list[float]],
    protocol: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    signals = [vowels.chunks(signal) for signal in streams()]
    expected = [package(signal) for signal in streams()]
    found: list[list[float]] = [[] for _ in signals]
    with ExitStack() as stack:
        numbers = (11, 12, "a stream's name", 14)
        opened = [stack.enter_context(Stream(served, protocol, number)) for number in numbers]
        for step in range(max(len(signal) for signal in signals)):
            for index, signal in enumerate(signals):
                if step < len(signal):
                    last = step == len(signal) - 1
                    found[index].append(opened[index].send(signal[step], start=step == 0, end=last))
    worst = max(np.abs(np.subtract(a, b)).max() for a, b in zip(found, expected, strict=True))
    with capsys.disabled():
        print(f"\n{protocol}: {sum(map(len, found))} chunks of 4 interleaved streams, largest difference {worst:.2g}")
    assert worst < TOLERANCE
    assert max(expected[0]) > 0.8 and min(expected[0]) < 0.1, "the voice moves the probabilities"
    # A server that forgot would answer otherwise, so that equality means something.
    forgetful = [package(chunk)[0] for chunk in signals[0]]
    assert np.abs(np.subtract(forgetful, expected[0])).max() > 0.1


def test_streams_at_once_share_batches_and_do_not_mix(
    served: Serving, package: Callable[[np.ndarray], list[float]]
) -> None:
    signals = [np.roll(vowels.voice(1.0, seed), 512 * seed) for seed in range(6)]

    def whole(index: int) -> list[float]:
        chunks = vowels.chunks(signals[index])
        with Stream(served, "grpc", 100 + index) as stream:
            return [
                stream.send(chunk, start=step == 0, end=step == len(chunks) - 1) for step, chunk in enumerate(chunks)
            ]

    with ThreadPoolExecutor(len(signals)) as pool:
        found = list(pool.map(whole, range(len(signals))))
    for answers, signal in zip(found, signals, strict=True):
        np.testing.assert_allclose(answers, package(signal), rtol=0, atol=TOLERANCE)


def test_a_stream_that_starts_again_starts_from_nothing(
    served: Serving, package: Callable[[np.ndarray], list[float]]
) -> None:
    chunks = vowels.chunks(vowels.voice(0.5, 3))
    expected = package(vowels.voice(0.5, 3))
    with Stream(served, "http", 21) as stream:
        for ended in (False, True):
            last = len(chunks) - 1
            found = [
                stream.send(chunk, start=step == 0, end=ended and step == last) for step, chunk in enumerate(chunks)
            ]
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


def test_a_stream_must_start(served: Serving) -> None:
    with (
        Stream(served, "http", 31) as stream,
        pytest.raises(tritonclient.http.InferenceServerException, match="must specify the START flag"),
    ):
        stream.send(np.zeros(512, np.float32))


def test_validate_proves_it_and_says_who_kept_the_state(demo: Workshop) -> None:
    outcome = demo.run("validate", "--json")
    assert outcome.code == 0, outcome.err
    (model,) = outcome.json["models"]
    assert model["ok"] and model["compared"] == model["cases"] == 8
    assert model["max_abs"] < TOLERANCE
    assert model["note"].startswith("implicit state was kept by the stand-in backend")
    assert demo.build()["new"] is False


def test_the_published_config_is_the_native_backends(demo: Workshop) -> None:
    text = (demo.folder / "build/local/current/models/speech/config.pbtxt").read_text()
    assert 'backend: "onnxruntime"' in text
    assert text.count("zero_data: true") == 2
    assert 'input_name: "state_batched"' in text and 'output_name: "input_context_next"' in text
