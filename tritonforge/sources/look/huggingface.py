"""Look at a Hugging Face folder: its ``config.json`` and the headers of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import Memory, ModelFacts, axis_sizes, files_below
from tritonforge.sources.look.torch_types import add_up
from tritonforge.sources.torch_file import TensorEntry, json_object, read

_CONFIG_LIMIT: Final = 4 * 2**20
_TOLD: Final = (
    "model_type", "architectures", "torch_dtype", "dtype", "hidden_size", "num_hidden_layers", "num_attention_heads",
    "vocab_size", "max_position_embeddings", "transformers_version",
)  # fmt: skip


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the folder; safetensors are preferred over pickles, as transformers does.

    Raises:
        CheckFailed: damaged weights or config.
        UsageError: an axis was given; a folder of weights has none.
    """
    config = path / "config.json"
    if config.stat().st_size > _CONFIG_LIMIT:
        raise CheckFailed("config.json is too large", place=Place(config), expected=f"at most {_CONFIG_LIMIT} bytes")
    said = json_object(config.read_bytes(), Place(config))
    files = files_below(path)
    weights = _weights(path, "model*.safetensors") or _weights(path, "pytorch_model*.bin")
    tensors: list[TensorEntry] = []
    used: dict[str, None] = {}
    problems = []
    for file in weights:
        found = read(file)
        tensors.extend(found.tensors)
        if found.unsafe_globals:
            problems.append(f"{file.name} is a pickle that would import {', '.join(found.unsafe_globals[:4])}")
        used.update(dict.fromkeys(found.globals))
    missing = _missing_shards(path)
    problems.extend(f"{name} is missing, which the index of the weights names" for name in missing)
    if not weights:
        problems.append("the folder has no weights of PyTorch (model*.safetensors or pytorch_model*.bin)")
    stored = add_up(tensors)
    return ModelFacts(
        format="huggingface",
        path=path,
        files=files,
        sizes=axis_sizes((), axes, Place(path)),
        parameters=stored.parameters if weights else None,
        weight_types=stored.types,
        memory=Memory(stored.bytes) if weights else None,
        versions={key: _short(said[key]) for key in _TOLD if key in said},
        globals=tuple(used),
        problems=tuple(problems),
        notes=tuple(_notes(path, said)),
    )


def _weights(path: Path, pattern: str) -> list[Path]:
    return sorted(file for file in path.glob(pattern) if file.is_file())


def _missing_shards(path: Path) -> list[str]:
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        index = path / name
        if index.is_file() and index.stat().st_size < 64 * 2**20:
            named = json_object(index.read_bytes(), Place(index)).get("weight_map")
            if isinstance(named, dict):
                shards = {shard for shard in named.values() if isinstance(shard, str) and "/" not in shard}
                return sorted(shard for shard in shards if not (path / shard).is_file())[:8]
    return []


def _notes(path: Path, said: Mapping[str, Any]) -> list[str]:
    notes = ["inputs and outputs follow from the task for which it is exported"]
    if said.get("auto_map"):
        notes.append("config.json names code of its own (auto_map): exporting runs that code, which must be allowed")
    if not any(
        (path / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
    ):
        notes.append("the folder has neither a tokenizer nor a preprocessor: clients must send tensors")
    return notes


def _short(value: Any) -> str | int:
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63:
        return value
    return ", ".join(map(str, value))[:200] if isinstance(value, list) else str(value)[:200]
