"""Packaged processors against transformers' own, without a server: the very `model.py` that Triton would run."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
import types
from pathlib import Path
from typing import Any

import making_huggingface as making
import numpy as np
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.compare import compare
from tritonforge.artifact.store import LocalStore
from tritonforge.artifact.tensors import CaseSet, read_cases
from tritonforge.errors import CheckFailed

pytest.importorskip("torch")
pytest.importorskip("tokenizers")  # comes with transformers


class FakeTensor:
    def __init__(self, name: str, array: np.ndarray) -> None:
        self.name, self.array = name, array

    def as_numpy(self) -> np.ndarray:
        return self.array


class FakeResponse:
    def __init__(self, output_tensors: Any = (), error: Any = None) -> None:
        self.outputs = {tensor.name: tensor.array for tensor in output_tensors}
        self.error = error


@pytest.fixture
def triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much of the Python backend's module as the packaged models use."""
    made = types.ModuleType("triton_python_backend_utils")
    made.Tensor, made.InferenceResponse, made.TritonError = FakeTensor, FakeResponse, str  # type: ignore[attr-defined]
    made.get_input_tensor_by_name = lambda request, name: FakeTensor(name, request[name])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", made)


@pytest.fixture
def package(run: Any, store: LocalStore, tmp_path: Path) -> Any:
    """``package(folder, part, …)`` gives the artifact and a folder with its files, as Triton lays them out."""

    def make(folder: Path, part: str, **recipe: Any) -> tuple[Artifact, Path]:
        config = {
            "recipe": {"part": part, "max_length": None, "padding": "longest", "source": "x", **recipe},
            "inputs": {},
            "outputs": {},
        }
        artifact = run("package-processor", config, sources={f"model/{file.name}": file for file in folder.iterdir()})
        served = tmp_path / "served" / artifact.digest[:8] / "1"
        for path, entry in artifact.files.items():
            if path not in artifact.metadata["not_served"]:
                target = served / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(store.blob(entry.sha256).read_bytes())
        return artifact, served

    return make


def opened(served: Path) -> Any:
    spec = importlib.util.spec_from_file_location("packaged", served / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.TritonPythonModel()
    model.initialize({"model_repository": str(served.parent), "model_version": "1"})
    return model


def golden(run: Any, store: LocalStore, artifact: Artifact, tmp_path: Path) -> CaseSet:
    """What transformers' own processor answers."""
    config = {"format": "huggingface", "seed": 0, "axes": {}, "ranges": {}, "batches": [1, 3, 8], "tolerance": None}
    made = run("golden", config, inputs={"model": artifact})
    folder = tmp_path / "golden"
    folder.mkdir(exist_ok=True)
    for path, entry in made.files.items():
        (folder / path).write_bytes(store.blob(entry.sha256).read_bytes())
    return read_cases(folder)


def hold(model: Any, cases: CaseSet) -> list[str]:
    """Ask for all cases in one call, as a server that batches does; the names of those that are right."""
    requests = [
        {name: value[None] if case.item else value for name, value in case.inputs.items()} for case in cases.cases
    ]
    for case, response in zip(cases.cases, model.execute(requests), strict=True):
        assert response.error is None, (case.name, response.error)
        assert response.outputs.keys() == case.outputs.keys()
        for name, expected in case.outputs.items():
            wanted = expected[None] if case.item else expected
            found = response.outputs[name]
            assert found.dtype == wanted.dtype
            difference = compare(name, cases.datatypes[name], found, wanted)
            assert difference.ok, (case.name, difference)
    return [case.name for case in cases.cases]


def texts(*values: str | bytes) -> dict[str, np.ndarray]:
    array = np.empty((len(values), 1), dtype=object)
    array[:, 0] = [value if isinstance(value, bytes) else value.encode() for value in values]
    return {"TEXT": array}


@pytest.mark.parametrize(
    ("make", "settings", "recipe"),
    [
        (making.bert_tokenizer, {}, {}),
        (making.bert_tokenizer, {}, {"max_length": 6}),
        (making.bert_tokenizer, {}, {"padding": "max_length", "max_length": 20}),
        (making.bert_tokenizer, {"padding_side": "left", "truncation_side": "left"}, {"max_length": 7}),
        (making.byte_tokenizer, {"padding_side": "left"}, {}),
    ],
    ids=["plain", "cut", "fixed", "left", "without padding"],
)
def test_texts_become_the_tokens_that_transformers_makes_of_them(
    triton: None, run: Any, store: LocalStore, package: Any, tmp_path: Path, make: Any, settings: Any, recipe: Any
) -> None:
    artifact, served = package(make(tmp_path / "source", **settings), "tokenizer", **recipe)
    names = hold(opened(served), golden(run, store, artifact, tmp_path))
    assert {"item-emoji", "item-long", "item-japanese", "batch3", "batch8"} <= set(names)
    assert ("item-empty" in names) == (make is making.bert_tokenizer), "what has no tokens is no sample"


def test_the_signature_and_the_files_of_a_tokenizer(package: Any, tmp_path: Path) -> None:
    artifact, served = package(making.bert_tokenizer(tmp_path / "source"), "tokenizer")
    assert [str(tensor) for tensor in artifact.signature.inputs] == ["TEXT: BYTES[batch,1]"]
    assert [str(tensor) for tensor in artifact.signature.outputs] == [
        "input_ids: INT64[batch,sequence]",
        "attention_mask: INT64[batch,sequence]",
        "token_type_ids: INT64[batch,sequence]",
    ]
    assert sorted(path.name for path in served.iterdir()) == [
        "model.py",
        "processor.json",
        "requirements.txt",
        "tokenizer.json",
    ]
    assert [line.partition("==")[0] for line in (served / "requirements.txt").read_text().split()] == [
        "numpy",
        "tokenizers",
    ]
    assert "tritonforge" not in (served / "model.py").read_text()


def test_a_request_is_padded_to_its_own_longest_text(triton: None, package: Any, tmp_path: Path) -> None:
    _, served = package(making.bert_tokenizer(tmp_path / "source"), "tokenizer")
    short, long = opened(served).execute([texts("fox", "the fox"), texts("the lazy dog jumps over the fox.")])
    assert short.outputs["input_ids"].tolist() == [[2, 6, 3, 0], [2, 5, 6, 3]]
    assert short.outputs["attention_mask"].tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert long.outputs["input_ids"].shape == (1, 10)


def test_what_is_not_utf8_fails_alone(triton: None, package: Any, tmp_path: Path) -> None:
    _, served = package(making.bert_tokenizer(tmp_path / "source"), "tokenizer")
    bad, good = opened(served).execute([texts("fox", b"\xff\xfe"), texts("fox")])
    assert "TEXT is not UTF-8" in bad.error
    assert good.outputs["input_ids"].tolist() == [[2, 6, 3]]


def test_a_text_without_tokens_is_refused_where_nothing_marks_it(triton: None, package: Any, tmp_path: Path) -> None:
    _, served = package(making.byte_tokenizer(tmp_path / "source"), "tokenizer")
    alone, beside = opened(served).execute([texts(""), texts("", "ab")])
    assert alone.error == "TEXT has no tokens"
    assert beside.outputs["attention_mask"].tolist() == [[0, 0], [1, 1]]


def picture_processor(folder: Path, kind: str, **settings: Any) -> Path:
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    import transformers

    getattr(transformers, f"{kind}Pil")(**settings).save_pretrained(folder)
    return folder


SMALL = {"height": 40, "width": 48}


@pytest.mark.parametrize(
    ("kind", "settings", "shape"),
    [
        ("ViTImageProcessor", {"size": SMALL}, (3, 40, 48)),
        ("ViTImageProcessor", {"size": SMALL, "do_rescale": False, "do_normalize": False}, (3, 40, 48)),
        ("ViTImageProcessor", {"size": SMALL, "resample": 0, "do_normalize": False}, (3, 40, 48)),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 33}}, (3, 32, 33)),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 20}, "crop_size": {"height": 33, "width": 32}}, (3, 33, 32)),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}}, (3, 48, 48)),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 384}}, (3, 384, 384)),
    ],
    ids=["square", "raw", "nearest", "crop", "crop beyond", "share", "warp"],
)
def test_pictures_become_the_pixels_that_transformers_makes_of_them(
    triton: None,
    run: Any,
    store: LocalStore,
    package: Any,
    tmp_path: Path,
    kind: str,
    settings: Any,
    shape: tuple[int, ...],
) -> None:
    artifact, served = package(picture_processor(tmp_path / "source", kind, **settings), "image-processor")
    assert artifact.signature.outputs[0].shape == ("batch", *shape)
    names = hold(opened(served), golden(run, store, artifact, tmp_path))
    assert {"item-jpeg", "item-turned", "item-grey", "item-palette", "item-clear", "item-webp"} <= set(names)


def test_what_is_no_picture_or_too_large_fails_alone(triton: None, package: Any, tmp_path: Path) -> None:
    from PIL import Image

    _, served = package(picture_processor(tmp_path / "source", "ViTImageProcessor", size=SMALL), "image-processor")
    settings = json.loads((served / "processor.json").read_text())
    assert settings["max_pixels"] == 64_000_000
    (served / "processor.json").write_text(json.dumps({**settings, "max_pixels": 1000}))

    def png(width: int, height: int) -> bytes:
        stream = io.BytesIO()
        Image.new("1", (width, height)).save(stream, "PNG")
        return stream.getvalue()

    files = [png(10, 100), png(10, 101), b"", png(9, 9)[:40], b"%!PS-Adobe-3.0 EPSF-3.0\n"]
    good, *bad = opened(served).execute([{"IMAGE": texts(data)["TEXT"]} for data in files])
    assert good.outputs["pixel_values"].shape == (1, 3, 40, 48)
    assert ["cannot be read" in str(response.error) for response in bad] == [True] * 4
    assert "10 x 101 pixels" in bad[0].error


@pytest.mark.parametrize(
    ("kind", "settings", "said"),
    [
        ("ViltImageProcessor", {}, "ViltImageProcessor cannot be packaged"),
        ("CLIPImageProcessor", {"do_center_crop": False}, "unequal sizes"),
    ],
)
def test_a_processor_that_does_more_is_refused(
    package: Any, tmp_path: Path, kind: str, settings: Any, said: str
) -> None:
    with pytest.raises(CheckFailed, match=said):
        package(picture_processor(tmp_path / "source", kind, **settings), "image-processor")


@pytest.mark.parametrize(
    ("kind", "settings", "made"),
    [
        ("WhisperFeatureExtractor", {"chunk_length": 1, "feature_size": 16}, "input_features: FP32[batch,16,100]"),
        ("WhisperFeatureExtractor", {"chunk_length": 1, "sampling_rate": 8000}, "input_features: FP32[batch,80,50]"),
        ("Wav2Vec2FeatureExtractor", {}, "input_values: FP32[batch,samples]"),
        ("Wav2Vec2FeatureExtractor", {"do_normalize": False}, "input_values: FP32[batch,samples]"),
    ],
    ids=["whisper", "whisper at 8 kHz", "wav2vec2", "wav2vec2 raw"],
)
def test_sound_becomes_what_transformers_makes_of_it(
    triton: None, run: Any, store: LocalStore, package: Any, tmp_path: Path, kind: str, settings: Any, made: str
) -> None:
    import making_huggingface  # noqa: F401

    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    import transformers

    getattr(transformers, kind)(**settings).save_pretrained(tmp_path / "source")
    artifact, served = package(tmp_path / "source", "feature-extractor")
    assert str(artifact.signature.outputs[0]) == made
    model = opened(served)
    assert len(hold(model, golden(run, store, artifact, tmp_path))) == 6
    (none,) = model.execute([{"AUDIO": np.zeros((1, 0), dtype=np.float32)}])
    assert none.error == "AUDIO has no samples"


def test_sound_longer_than_whisper_reads_is_cut(triton: None, package: Any, tmp_path: Path) -> None:
    from tritonforge.sources.huggingface.quiet import import_transformers

    import_transformers()
    from transformers import WhisperFeatureExtractor

    original = WhisperFeatureExtractor(chunk_length=1, feature_size=16)
    original.save_pretrained(tmp_path / "source")
    _, served = package(tmp_path / "source", "feature-extractor")
    sound = np.random.default_rng(0).standard_normal((1, 20_000)).astype(np.float32)
    (found,) = opened(served).execute([{"AUDIO": sound}])
    expected = original(list(sound), sampling_rate=16_000, return_tensors="np")["input_features"]
    np.testing.assert_allclose(found.outputs["input_features"], expected, atol=1e-4)
