"""Raw text through a packaged tokenizer and a network of transformers, in one call to the embedded Triton."""

from __future__ import annotations

from collections.abc import Iterator

import making_huggingface as making
import numpy as np
import pytest
import tritonclient.grpc
from cli.commands import Serving, Workshop

from tritonforge.triton.embedded import Runtime

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")  # comes with transformers
pytestmark = pytest.mark.live

SPEC = """apiVersion: tritonforge/v1
name: texts
models:
  tokenizer: {source: model, huggingface: {part: tokenizer}, max_batch_size: 8}
  network: {source: model, max_batch_size: 8, export: {exporters: [torchscript]}}
ensembles:
  classify:
    inputs: [TEXT]
    outputs: [logits]
    max_batch_size: 8
    steps:
      - model: tokenizer
      - model: network
"""
TEXTS = ["The fox jumps over the lazy dog.", "", "日本語 fox 🦊", "dogs " * 50]


@pytest.fixture(scope="module")
def made(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    workshop = Workshop.make(tmp_path_factory.mktemp("texts") / "w", runtime.root.parent)
    folder = making.network(workshop.folder, "bert-classes").rename(workshop.folder / "model")
    making.bert_tokenizer(folder)
    (workshop.folder / "forge.yaml").write_text(SPEC)
    assert workshop.build()["new"] is True
    return workshop


@pytest.fixture(scope="module")
def served(made: Workshop) -> Iterator[Serving]:
    serving = Serving.start(made)
    yield serving
    assert serving.stop() == 0


def test_every_model_is_proven_live(made: Workshop) -> None:
    ran = made.run("validate")
    assert ran.code == 0, ran.err


def test_text_in_one_call_gives_what_transformers_gives_in_two(made: Workshop, served: Serving) -> None:
    from transformers import AutoTokenizer, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(made.folder / "model")
    network = BertForSequenceClassification.from_pretrained(made.folder / "model").eval()
    encoded = tokenizer(TEXTS, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad():
        expected = network(**encoded).logits.numpy()
    tensor = tritonclient.grpc.InferInput("TEXT", [len(TEXTS), 1], "BYTES")
    tensor.set_data_from_numpy(np.array([text.encode() for text in TEXTS], dtype=object).reshape(-1, 1))
    with tritonclient.grpc.InferenceServerClient(served.grpc) as client:
        found = client.infer("classify", [tensor]).as_numpy("logits")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_what_is_not_utf8_is_said_to_be_so(served: Serving) -> None:
    tensor = tritonclient.grpc.InferInput("TEXT", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[b"\xff\xfe"]], dtype=object))
    with (
        tritonclient.grpc.InferenceServerClient(served.grpc) as client,
        pytest.raises(tritonclient.grpc.InferenceServerException, match="TEXT is not UTF-8"),
    ):
        client.infer("classify", [tensor])
