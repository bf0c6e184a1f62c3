"""Look at an exported program (``.pt2``): signature and operators from its JSON, weights from their list.

Source: PyTorch ``torch/_export/serde/schema.py`` and ``torch/export/pt2_archive``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tritonforge.errors import CheckFailed, Place
from tritonforge.sources.archive import open_archive
from tritonforge.sources.look.facts import Dim, Memory, ModelFacts, TensorFacts, axis_sizes, dynamic_axes
from tritonforge.sources.look.torch_types import add_up, name_of
from tritonforge.sources.torch_file import SCALAR_TYPES, json_member, read, root_of

_SYMBOL: Final = re.compile(r"Symbol\('(\w+)'[^)]*\)")


def look(path: Path, axes: Mapping[str, int]) -> ModelFacts:
    """Facts of the first program in the archive.

    Raises:
        CheckFailed: truncated or malformed.
        UsageError: an axis that the model does not have.
    """
    found = read(path)
    with open_archive(path) as archive:
        root = root_of(archive)
        names = [name for name in archive.namelist() if name.startswith(f"{root}models/") and name.endswith(".json")]
        names += [name for name in archive.namelist() if name.endswith("serialized_exported_program.json")]
        if not names:
            raise CheckFailed("the archive holds no exported program", place=Place(path), expected="models/*.json")
        program = json_member(archive, names[0])
    try:
        module = program["graph_module"]
        operators = Counter(str(node["target"]).removeprefix("torch.ops.")[:200] for node in module["graph"]["nodes"])
        inputs = tuple(_tensors(module, "input_specs", "user_input"))
        outputs = tuple(_tensors(module, "output_specs", "user_output"))
        schema = program.get("schema_version") or {}
        versions: dict[str, str | int] = {"schema": f"{schema.get('major')}.{schema.get('minor')}"}
        versions.update({f"opset {name}": int(number) for name, number in program["opset_version"].items()})
        if program.get("torch_version"):
            versions["torch"] = str(program["torch_version"])[:100]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckFailed(
            "the exported program is malformed",
            place=Place(path, field=names[0]),
            expected="an ExportedProgram as torch.export.save writes it",
            found=f"{type(error).__name__}: {error}"[:200],
        ) from None
    stored = add_up(found.tensors)
    return ModelFacts(
        format="torch-export",
        path=path,
        files={path.name: path.stat().st_size},
        inputs=inputs,
        outputs=outputs,
        sizes=axis_sizes(dynamic_axes(inputs), axes, Place(path)),
        parameters=stored.parameters,
        weight_types=stored.types,
        operators=dict(operators.most_common()),
        memory=Memory(stored.bytes),
        versions=versions,
        notes=(f"{len(names)} programs are in the archive; the first is shown",) if len(names) > 1 else (),
    )


def _tensors(module: dict[str, Any], specs: str, kind: str) -> Iterator[TensorFacts]:
    """The arguments that a caller gives, or gets."""
    values = module["graph"]["tensor_values"]
    for spec in module["signature"][specs]:
        if kind in spec:
            tensor = spec[kind]["arg"].get("as_tensor")
            if tensor is None:
                yield TensorFacts(str(next(iter(spec[kind]["arg"]), "none")), "constant")
                continue
            meta = values[tensor["name"]]
            shape = tuple(_dim(size) for size in meta["sizes"])
            yield TensorFacts(str(tensor["name"]), name_of(SCALAR_TYPES.get(meta["dtype"], "unknown")), shape)


def _dim(size: dict[str, Any]) -> Dim:
    if "as_int" in size:
        return int(size["as_int"])
    return _SYMBOL.sub(r"\1", str(size["as_expr"]["expr_str"]))[:200]
