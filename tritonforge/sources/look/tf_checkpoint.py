"""Look at a TensorFlow checkpoint: weights without a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.look.facts import Memory, ModelFacts, axis_sizes
from tritonforge.sources.look.tensor_bundle import variables


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of a checkpoint: its folder, its ``.index`` file or its prefix.

    Raises:
        CheckFailed: no index, or a damaged one.
        UsageError: an axis was given; a checkpoint has none.
    """
    index = _index(path)
    sizes = axis_sizes((), axes, Place(path))
    found = variables(index)
    weights: Counter[str] = Counter()
    for item in found:
        if item.is_weight:
            weights[item.datatype] += item.elements
    prefix = index.name.removesuffix(".index")
    shards = {
        file.name: file.stat().st_size
        for file in sorted(index.parent.iterdir())
        if file.name.startswith(f"{prefix}.data-")
    }
    return ModelFacts(
        format="tf-checkpoint",
        path=path,
        files={index.name: index.stat().st_size, **shards},
        sizes=sizes,
        parameters=weights.total(),
        weight_types=dict(weights.most_common()),
        memory=Memory(sum(item.size for item in found if not item.is_training_state)),
        problems=() if shards else ("the data files of the checkpoint are missing",),
        notes=(f"{len(found)} variables and no graph: the code that made the model is needed to serve it",),
    )


def _index(path: Path) -> Path:
    if path.is_dir():
        said = path / "checkpoint"
        if said.is_file() and said.stat().st_size < 2**20:
            match = re.search(r'^model_checkpoint_path: "([^"/\\]+)"', said.read_text("utf-8", "replace"), re.MULTILINE)
            if match and (path / f"{match.group(1)}.index").is_file():
                return path / f"{match.group(1)}.index"
        files = sorted(path.glob("*.index"), key=lambda file: file.stat().st_mtime)
        if files:
            return files[-1]
    elif path.suffix == ".index":
        return path
    elif path.with_name(f"{path.name}.index").is_file():
        return path.with_name(f"{path.name}.index")
    raise CheckFailed("the checkpoint has no index", place=Place(path), expected="a file NAME.index")
