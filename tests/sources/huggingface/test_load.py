from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import making_huggingface as making
import pytest

from tritonforge.errors import CheckFailed
from tritonforge.sources.huggingface.load import load_module

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")  # comes with transformers, whose import is a test's own affair


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders with the networks that tests ask for, made once."""
    return tmp_path_factory.mktemp("networks")


@pytest.fixture
def source(saved: Path, tmp_path: Path) -> Any:
    """``source(name)`` gives an artifact's folder, whose ``model/`` a test may spoil."""

    def copy(name: str) -> Path:
        if not (saved / name).exists():
            making.network(saved, name)
        shutil.copytree(saved / name, tmp_path / "model", dirs_exist_ok=True)
        return tmp_path

    return copy


def change(folder: Path, **settings: Any) -> None:
    path = folder / "model" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def refused(folder: Path, **recipe: Any) -> CheckFailed:
    with pytest.raises(CheckFailed) as raised:
        load_module(folder, recipe)
    return raised.value


def test_the_network_answers_as_transformers_own_class_does(source: Any) -> None:
    from transformers import BertModel

    folder = source("bert")
    module = load_module(folder, {})
    original = BertModel.from_pretrained(folder / "model").eval()
    ids, mask = torch.tensor([[5, 9, 7], [8, 3, 0]]), torch.tensor([[1, 1, 1], [1, 1, 0]])
    found, wanted = module(ids, mask, torch.zeros_like(ids)), original(ids, mask, torch.zeros_like(ids))
    assert list(found) == ["last_hidden_state", "pooler_output"]
    assert torch.equal(found["last_hidden_state"], wanted.last_hidden_state)
    assert not module.training and not any(weight.requires_grad for weight in module.parameters())


def test_a_decoder_that_is_given_its_past_says_what_one_that_reads_all_says(source: Any) -> None:
    folder = source("llama")
    whole, step = load_module(folder, {}), load_module(folder, {"task": "text-generation-with-past"})
    ids = torch.tensor([[5, 9, 7, 8, 11]])
    past = [torch.zeros(1, 2, 0, 4)] * 4
    first = step(ids[:, :3], torch.ones(1, 3, dtype=torch.int64), torch.tensor([[0, 1, 2]]), *past)
    cache = [value for name, value in first.items() if name.startswith("present.")]
    assert [value.shape[2] for value in cache] == [3] * 4
    second = step(ids[:, 3:], torch.ones(1, 5, dtype=torch.int64), torch.tensor([[3, 4]]), *cache)
    wanted = whole(ids, torch.ones(1, 5, dtype=torch.int64))["logits"]
    torch.testing.assert_close(torch.cat([first["logits"], second["logits"]], dim=1), wanted)


def test_a_picture_is_searched_for_its_own_texts(source: Any) -> None:
    module = load_module(source("owlv2"), {})
    ids = torch.randint(1, 60, (2, 3, 8))
    pictures = torch.randn(2, 3, 32, 32)
    together = module(ids, torch.ones_like(ids), pictures)
    alone = module(ids[1:], torch.ones_like(ids[1:]), pictures[1:])
    assert together["logits"].shape == (2, 16, 3)
    torch.testing.assert_close(together["logits"][1:], alone["logits"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision_stays_inside(source: Any, dtype: str) -> None:
    module = load_module(source("vit"), {"dtype": dtype})
    assert next(module.parameters()).dtype == {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    assert module(torch.zeros(1, 3, 32, 32))["logits"].dtype == torch.float32


def test_weights_without_a_pooler_give_features_without_one(source: Any) -> None:
    module = load_module(source("bert-masked"), {"task": "feature-extraction"})
    assert module.call.outputs == ("last_hidden_state",)


def test_weights_that_would_be_random_are_an_error(source: Any) -> None:
    error = refused(source("bert"), task="text-classification")
    assert "not those of BertForSequenceClassification" in error.message
    assert "classifier" in str(error.found)


def test_a_task_that_cannot_be_told_is_asked_for_with_what_is_known(source: Any) -> None:
    error = refused(source("bert-masked"))
    assert error.found == "BertForMaskedLM"
    assert "feature-extraction" in str(error.expected)


def test_a_network_without_weights_is_refused(source: Any) -> None:
    folder = source("bert")
    (folder / "model" / "model.safetensors").unlink()
    assert refused(folder).message == "the model has no weights"


def test_a_part_of_the_weights_that_is_missing_is_named(source: Any) -> None:
    folder = source("bert")
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "../../model-00002-of-00002.safetensors"}}
    (folder / "model" / "model.safetensors").rename(folder / "model" / "model-00001-of-00002.safetensors")
    (folder / "model" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert refused(folder).expected == "../../model-00002-of-00002.safetensors"


def test_damaged_weights_are_one_clear_error(source: Any) -> None:
    folder = source("bert")
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "cannot load the model as BertModel" in refused(folder).message


def test_weights_of_another_size_are_refused(source: Any) -> None:
    folder = source("bert")
    change(folder, hidden_size=32)
    error = refused(folder)
    assert "BertModel" in error.message


def test_pickled_weights_are_read_when_they_hold_nothing_but_tensors(source: Any) -> None:
    from safetensors.torch import load_file

    folder = source("bert")
    file = folder / "model" / "model.safetensors"
    expected = load_module(folder, {})(*[torch.ones(1, 2, dtype=torch.int64)] * 3)
    torch.save(load_file(file), folder / "model" / "pytorch_model.bin")
    file.unlink()
    found = load_module(folder, {})(*[torch.ones(1, 2, dtype=torch.int64)] * 3)
    torch.testing.assert_close(found["pooler_output"], expected["pooler_output"])


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("ran"),))


def test_a_pickle_that_holds_more_is_not_opened(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source("bert")
    monkeypatch.chdir(folder)
    (folder / "model" / "model.safetensors").unlink()
    torch.save({"weight": Evil()}, folder / "model" / "pytorch_model.bin")
    assert "would run code" in refused(folder).message
    assert not (folder / "ran").exists()


def test_code_that_a_model_brings_is_not_run(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source("bert")
    monkeypatch.chdir(folder)
    (folder / "model" / "modeling_own.py").write_text("open('ran', 'w')\n")
    change(
        folder,
        model_type="own",
        architectures=["OwnModel"],
        auto_map={"AutoModel": "modeling_own.OwnModel", "AutoConfig": "modeling_own.OwnConfig"},
    )
    for task in (None, "feature-extraction"):
        error = refused(folder, task=task)
        assert "OwnModel" in str(error.found)
        assert "code of its own" in str(error.hint)
    assert not (folder / "ran").exists()


def test_kernels_of_a_quantising_library_are_refused(source: Any) -> None:
    folder = source("bert")
    change(folder, quantization_config={"quant_method": "bitsandbytes"})
    assert refused(folder).found == "bitsandbytes"


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "no object"), ("{}", "no model of transformers")])
def test_a_config_that_is_none_is_named(source: Any, text: str, said: str) -> None:
    folder = source("bert")
    (folder / "model" / "config.json").write_text(text)
    assert said in refused(folder).message


def test_a_size_that_nothing_says_is_asked_for(source: Any) -> None:
    folder = source("resnet")
    assert "how large 'pixel_values' is" in refused(folder).message
    stated = load_module(folder, {"inputs": {"pixel_values": {"type": "FP32[3,48,64]"}}})
    assert stated.call.inputs[0].shape == ("batch", 3, 48, 64)
    (folder / "model" / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 40}}')
    assert load_module(folder, {}).call.inputs[0].shape == ("batch", 3, 40, 40)


def test_loading_draws_in_nothing_that_it_does_not_need(source: Any) -> None:
    folder = source("bert")
    code = (
        "import sys; from pathlib import Path; from tritonforge.sources.huggingface.load import load_module; "
        f"load_module(Path({str(folder)!r}), {{}}); "
        "print([name for name in ('torchvision', 'scipy', 'sklearn', 'pandas', 'tensorflow', 'timm') "
        "if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
