"""Networks of transformers, from their folder to ONNX that computes what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import making_huggingface as making
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import CheckFailed

pytest.importorskip("torch")
pytest.importorskip("tokenizers")  # comes with transformers


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


@pytest.fixture
def imported(run: Any, saved: Path) -> Any:
    """``imported(name, task=…, inputs=…)`` imports a tiny network."""

    def make(name: str, *, inputs: Mapping[str, Any] | None = None, **recipe: Any) -> Artifact:
        folder = saved / name if (saved / name).exists() else making.network(saved, name)
        config = {
            "recipe": {"kind": "huggingface", "part": "model", "source": name, "dtype": "fp32", **recipe},
            "inputs": {key: {"type": text} for key, text in (inputs or {}).items()},
            "outputs": {},
            "batched": None,
            "axes": {},
            "ranges": {},
        }
        sources = {f"model/{file.name}": file for file in folder.iterdir()}
        artifact: Artifact = run("import-huggingface", config, sources=sources)
        return artifact

    return make


TEXT = ["input_ids: INT64[batch,sequence]", "attention_mask: INT64[batch,sequence]"]
TYPES = "token_type_ids: INT64[batch,sequence]"
SIGNATURES = [
    (
        "bert",
        "feature-extraction",
        [*TEXT, TYPES],
        ["last_hidden_state: FP32[batch,sequence,16]", "pooler_output: FP32[batch,16]"],
    ),
    ("bert-classes", "text-classification", [*TEXT, TYPES], ["logits: FP32[batch,2]"]),
    ("bert-tokens", "token-classification", [*TEXT, TYPES], ["logits: FP32[batch,sequence,2]"]),
    (
        "bert-answers",
        "question-answering",
        [*TEXT, TYPES],
        ["start_logits: FP32[batch,sequence]", "end_logits: FP32[batch,sequence]"],
    ),
    ("roberta", "text-classification", TEXT, ["logits: FP32[batch,2]"]),
    ("distilbert", "feature-extraction", TEXT, ["last_hidden_state: FP32[batch,sequence,16]"]),
    ("vit", "image-classification", ["pixel_values: FP32[batch,3,32,32]"], ["logits: FP32[batch,2]"]),
    (
        "vit-features",
        "feature-extraction",
        ["pixel_values: FP32[batch,3,32,32]"],
        ["last_hidden_state: FP32[batch,17,16]", "pooler_output: FP32[batch,16]"],
    ),
    (
        "owlv2",
        "zero-shot-object-detection",
        [
            "input_ids: INT64[batch,queries,8]",
            "attention_mask: INT64[batch,queries,8]",
            "pixel_values: FP32[batch,3,32,32]",
        ],
        [
            "logits: FP32[batch,16,queries]",
            "pred_boxes: FP32[batch,16,4]",
            "text_embeds: FP32[batch,queries,16]",
            "image_embeds: FP32[batch,4,4,16]",
        ],
    ),
    (
        "whisper",
        "automatic-speech-recognition",
        ["input_features: FP32[batch,8,100]"],
        ["last_hidden_state: FP32[batch,50,16]"],
    ),
    ("wav2vec2", "audio-classification", ["input_values: FP32[batch,samples]"], ["logits: FP32[batch,2]"]),
    (
        "wav2vec2-ctc",
        "automatic-speech-recognition",
        ["input_values: FP32[batch,samples]"],
        ["logits: FP32[batch,?logits.1,20]"],
    ),
    ("ast", "audio-classification", ["input_values: FP32[batch,64,32]"], ["logits: FP32[batch,2]"]),
    ("llama", "text-generation", TEXT, ["logits: FP32[batch,sequence,60]"]),
    ("gpt2", "text-generation", TEXT, ["logits: FP32[batch,sequence,60]"]),
]


@pytest.mark.parametrize(("name", "task", "inputs", "outputs"), SIGNATURES, ids=[row[0] for row in SIGNATURES])
def test_the_architecture_says_what_goes_in_and_out(
    imported: Any, name: str, task: str, inputs: list[str], outputs: list[str]
) -> None:
    artifact = imported(name)
    assert artifact.metadata["task"] == task
    assert [str(tensor) for tensor in artifact.signature.inputs] == inputs
    assert [str(tensor) for tensor in artifact.signature.outputs] == outputs
    assert artifact.signature.batched


def test_a_decoder_with_its_past_reads_a_mask_over_both_and_gives_a_longer_past(imported: Any) -> None:
    artifact = imported("llama", task="text-generation-with-past")
    shapes = {tensor.name: tensor.shape for tensor in (*artifact.signature.inputs, *artifact.signature.outputs)}
    assert list(shapes) == [
        "input_ids",
        "attention_mask",
        "position_ids",
        *(f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")),
        "logits",
        *(f"present.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")),
    ]
    assert shapes["attention_mask"] == ("batch", "past_sequence + sequence")
    assert shapes["past_key_values.1.value"] == ("batch", 2, "past_sequence", 4)
    assert shapes["present.1.value"] == ("batch", 2, "past_sequence + sequence", 4)


def test_likely_values_come_with_the_source(imported: Any) -> None:
    generation = imported("bert").metadata["generation"]
    assert generation == {
        "axes": {"sequence": [1, 40]},
        "ranges": {
            "input_ids": {"low": 0, "high": 59},
            "attention_mask": {"mask": True},
            "token_type_ids": {"low": 0, "high": 1},
        },
    }
    assert imported("bert", max_length=12).metadata["generation"]["axes"] == {"sequence": [1, 12]}
    # RoBERTa counts from behind the padding, whose index is 1.
    assert imported("roberta").metadata["generation"]["axes"] == {"sequence": [1, 38]}
    assert imported("wav2vec2").metadata["generation"]["axes"] == {"samples": [30, 4000]}


def test_only_the_files_that_loading_reads_are_kept(imported: Any, saved: Path) -> None:
    making.network(saved, "vit")
    (saved / "vit" / "README.md").write_text("# a model")
    (saved / "vit" / "pytorch_model.bin").write_bytes(b"the same weights as a pickle")
    assert sorted(imported("vit").files) == ["model/config.json", "model/model.safetensors"]


def test_the_spec_says_how_large_a_picture_is(imported: Any) -> None:
    with pytest.raises(CheckFailed, match="nothing says how large 'pixel_values' is"):
        imported("resnet")
    artifact = imported("resnet", inputs={"pixel_values": "FP32[3,32,32]"})
    assert str(artifact.signature.inputs[0]) == "pixel_values: FP32[batch,3,32,32]"


PROVEN = ["bert", "owlv2", "whisper", "wav2vec2-ctc"]


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *((name, None) for name in PROVEN),
        ("llama", "text-generation-with-past"),
        *(pytest.param(row[0], None, marks=pytest.mark.slow) for row in SIGNATURES if row[0] not in PROVEN),
        pytest.param("gpt2", "text-generation-with-past", marks=pytest.mark.slow),
    ],
)
def test_its_onnx_computes_what_it_computes(run: Any, imported: Any, name: str, task: str | None) -> None:
    source = imported(name, task=task)
    golden = run(
        "golden",
        {"format": "huggingface", "seed": 0, "axes": {}, "ranges": {}, "batches": [1, 3], "tolerance": None},
        inputs={"model": source},
    )
    # The exporter through TorchScript is ten times as fast; the other one is proven where it is the default.
    onnx = run("torch-to-onnx", {"opset": None, "exporters": ["torchscript"]}, inputs={"model": source})
    parity = run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": onnx, "golden": golden})
    assert parity.metadata["max_abs"] < 1e-4
    assert onnx.signature == source.signature
