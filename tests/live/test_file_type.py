"""The demo's ensemble gives the label that the magika library gives, for real files, over HTTP and gRPC."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cli.commands import Serving, Workshop
from file_corpus import gather, largest_library
from magika import Magika

from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

REPOSITORY = Path(__file__).parents[2] / "repositories" / "file-type"
BATCH = 16


@pytest.fixture(scope="module")
def demo(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A copy of the demo's repository, built from nothing."""
    made = Workshop.make(tmp_path_factory.mktemp("demo") / "w", runtime.root.parent)
    shutil.copytree(REPOSITORY, made.folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("build"))
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def served(demo: Workshop) -> Iterator[Serving]:
    serving = Serving.start(demo)
    yield serving
    assert serving.stop() == 0


@pytest.fixture(scope="module")
def corpus() -> dict[str, bytes]:
    return gather()


@pytest.fixture(scope="module")
def library(corpus: dict[str, bytes]) -> dict[str, Any]:
    """What the library says of each file."""
    magika = Magika()
    return {name: magika.identify_bytes(data).output for name, data in corpus.items()}


def ask(served: Serving, protocol: str, contents: list[bytes], timeout: float = 60) -> list[tuple[str, str, str]]:
    """Label, MIME type and group of each, with the vendor's client and nothing of ours."""
    module = getattr(tritonclient, protocol)
    tensor = module.InferInput("CONTENT", [len(contents), 1], "BYTES")
    tensor.set_data_from_numpy(np.array(contents, dtype=object).reshape(-1, 1))
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        answer = client.infer("file-type", [tensor])
        columns = [answer.as_numpy(name).reshape(-1) for name in ("LABEL", "MIME", "GROUP")]
    return [tuple(item.decode() for item in row) for row in zip(*columns, strict=True)]


def test_every_label_equals_the_librarys(
    served: Serving, corpus: dict[str, bytes], library: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    # The longest ones go one by one and the others in batches, so that both ways are taken.
    names = sorted(corpus, key=lambda name: len(corpus[name]))
    groups = [names[start : start + BATCH] for start in range(0, len(names) - 20, BATCH)]
    groups += [[name] for name in names[len(groups) * BATCH :]]
    wanted = {name: (str(said.label), said.mime_type, said.group) for name, said in library.items()}
    kinds = Counter(label for label, _, _ in wanted.values())
    for protocol in ("http", "grpc"):
        found: dict[str, Any] = {}
        for group in groups:
            found.update(zip(group, ask(served, protocol, [corpus[name] for name in group]), strict=True))
        different = {name: (found[name], wanted[name]) for name in names if found[name] != wanted[name]}
        with capsys.disabled():
            equal = len(names) - len(different)
            print(f"\n  {protocol}: {len(kinds)} kinds, {len(names)} files, {equal} labels equal to magika's")
        assert different == {}
    assert len(kinds) >= 30, kinds


@pytest.mark.parametrize("protocol", ["http", pytest.param("grpc", marks=pytest.mark.slow)])
def test_a_large_file_is_taken_whole(served: Serving, protocol: str) -> None:
    content = largest_library().read_bytes()
    assert len(content) > 4 << 20
    wanted = str(Magika().identify_bytes(content).output.label)
    assert [label for label, _, _ in ask(served, protocol, [content])] == [wanted]


def test_a_second_build_runs_nothing(demo: Workshop) -> None:
    again = demo.build()
    assert (again["steps"]["built"], again["new"], again["flipped"]) == (0, False, False)
    assert demo.run("build").out.startswith("local: nothing to build")


def test_the_golden_cases_hold_live_and_the_release_says_so(demo: Workshop) -> None:
    done = demo.json("validate")
    assert done["ok"] is True
    compared = {model["folder"]: model["compared"] for model in done["models"]}
    assert compared["network"] > 0
    assert compared["file-type"] > 0
    shown = demo.json("release", "show")
    assert set(shown["proven_on"]) == {"features", "network", "label", "file-type"}
    assert all("the embedded Triton" in text for text in shown["proven_on"].values())
    reused = demo.json("validate", "--reuse")
    assert (reused["ok"], reused["reused"]) == (True, True)
