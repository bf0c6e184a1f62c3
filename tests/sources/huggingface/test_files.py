from __future__ import annotations

from tritonforge.sources.huggingface.files import model_files, processor_files

REPOSITORY = [
    ".gitattributes",
    "README.md",
    "config.json",
    "flax_model.msgpack",
    "merges.txt",
    "model.safetensors",
    "modeling_own.py",
    "onnx/model.onnx",
    "original/consolidated.00.pth",
    "preprocessor_config.json",
    "pytorch_model.bin",
    "tf_model.h5",
    "tokenizer.json",
    "tokenizer_config.json",
    "training_args.bin",
    "vocab.json",
]


def test_a_network_needs_its_config_its_safetensors_and_what_its_processors_say() -> None:
    assert model_files(REPOSITORY) == [
        "config.json",
        "merges.txt",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_pickled_weights_count_where_there_are_no_others() -> None:
    parts = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin", "pytorch_model.bin.index.json"]
    assert model_files(["config.json", *parts, "training_args.bin"]) == ["config.json", *parts]
    parts = ["model-00001-of-00001.safetensors", "model.safetensors.index.json"]
    assert model_files([*parts, "pytorch_model.bin"]) == parts


def test_a_processor_needs_no_weights_and_no_code() -> None:
    assert processor_files(REPOSITORY) == [
        "config.json",
        "merges.txt",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
    ]
