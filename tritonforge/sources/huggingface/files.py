"""Which files of a Hugging Face model count: those that loading its network or a processor reads."""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

NETWORK: Final = ("config.json", "generation_config.json")
SAFE_WEIGHTS: Final = ("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json")
PICKLED_WEIGHTS: Final = ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "pytorch_model.bin.index.json")
TEXT: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "normalizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "*.tiktoken",
)
OTHER_PROCESSORS: Final = ("preprocessor_config.json", "processor_config.json")


def model_files(names: Iterable[str]) -> list[str]:
    """The files that loading the network reads, weights as safetensors where there are any.

    Processors' files are among them: they say which inputs a text model is given, and the size of images.
    """
    names = list(names)
    weights = matching(names, SAFE_WEIGHTS)
    if not any(name.endswith(".safetensors") for name in weights):
        weights = matching(names, PICKLED_WEIGHTS)
    return sorted([*matching(names, NETWORK), *weights, *matching(names, (*TEXT, *OTHER_PROCESSORS))])


def processor_files(names: Iterable[str]) -> list[str]:
    """The files that loading a tokenizer, image processor or feature extractor reads."""
    return sorted(matching(names, (*NETWORK, *TEXT, *OTHER_PROCESSORS)))


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that any of the patterns fits; a name with a folder in front fits none."""
    patterns = tuple(patterns)
    return [name for name in names if "/" not in name and any(fnmatchcase(name, pattern) for pattern in patterns)]
