"""Look at a TorchScript archive: ``forward`` and the operators from its code, tensors from its pickles.

Source: PyTorch ``torch/csrc/jit/docs/serialization.md``.
"""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.archive import member, open_archive
from tritonforge.sources.look.facts import Memory, ModelFacts, TensorFacts, axis_sizes
from tritonforge.sources.look.torch_types import add_up
from tritonforge.sources.torch_file import read, root_of

_CODE_LIMIT: Final = 16 * 2**20
_CALL: Final = re.compile(r"\b(?:torch|ops\.\w+)\.(\w+)\(")


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the module; TorchScript keeps no shapes, so that only names of inputs are told.

    Raises:
        CheckFailed: truncated or malformed.
        UsageError: an axis was given; TorchScript tells of none.
    """
    found = read(path)
    sizes = axis_sizes((), axes, Place(path))
    with open_archive(path) as archive:
        root = root_of(archive)
        code = _code(archive, root, path)
    operators: Counter[str] = Counter()
    for text in code.values():
        operators.update(_CALL.findall(text))
    main = found.globals[0] if found.globals else ""
    inputs, outputs = _forward(code, main)
    stored = add_up(found.tensors)
    return ModelFacts(
        format="torchscript",
        path=path,
        files={path.name: path.stat().st_size},
        inputs=inputs,
        outputs=outputs,
        sizes=sizes,
        parameters=stored.parameters,
        weight_types=stored.types,
        operators=dict(operators.most_common()),
        memory=Memory(stored.bytes),
        versions={"class": main.removeprefix("__torch__.")} if main else {},
        notes=(
            "TorchScript keeps no shapes: the spec has to name those of inputs and outputs",
            "operators are counted as they stand in the code, not as often as they run",
        ),
    )


def _code(archive: zipfile.ZipFile, root: str, path: Path) -> dict[str, str]:
    """The Python-like text of each file, by its place below ``code/``."""
    found, budget = {}, _CODE_LIMIT
    for name in archive.namelist():
        if name.startswith(f"{root}code/") and name.endswith(".py"):
            data = member(archive, name, budget)
            budget -= len(data)
            if budget <= 0:
                raise CheckFailed("the code is too large", place=Place(path), expected=f"at most {_CODE_LIMIT} bytes")
            found[name.removeprefix(f"{root}code/")] = data.decode("utf-8", "replace")
    return found


def _forward(
    code: Mapping[str, str], main: str
) -> tuple[tuple[TensorFacts, ...] | None, tuple[TensorFacts, ...] | None]:
    """The arguments and results of the class ``main`` as its ``forward`` declares them."""
    module, _, name = main.rpartition(".")
    text = code.get(f"{module.replace('.', '/')}.py", "")
    start = text.find(f"class {name}(")
    start = text.find("def forward(", start) if start >= 0 else -1
    arrow = text.find(") -> ", start)
    end = text.find(":\n", arrow)
    if start < 0 or arrow < 0 or end < 0:
        return None, None
    arguments = _split(text[start + len("def forward(") : arrow])[1:]  # the first is self
    inputs = tuple(
        TensorFacts(
            argument.partition(":")[0].strip(), argument.partition(":")[2].partition("=")[0].strip() or "Tensor"
        )
        for argument in arguments
    )
    result = text[arrow + len(") -> ") : end].strip()
    several = result.startswith("Tuple[") and result.endswith("]")
    results = _split(result[len("Tuple[") : -1]) if several else [result]
    return inputs, tuple(TensorFacts(str(index), kind) for index, kind in enumerate(results))


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no bracket."""
    parts, depth, begin = [], 0, 0
    for at, sign in enumerate(text):
        if sign in "[(":
            depth += 1
        elif sign in "])":
            depth -= 1
        elif sign == "," and depth == 0:
            parts.append(text[begin:at].strip())
            begin = at + 1
    parts.append(text[begin:].strip())
    return [part for part in parts if part]
