"""The signature of a model: its named, typed, shaped inputs and outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from tritonforge.artifact.datatypes import data_type
from tritonforge.errors import SpecError

type_pattern: Final = re.compile(r"^\s*([A-Za-z0-9_]+)\s*\[\s*([^\]]*?)\s*\]\s*$")

Dim = int | str
"""A fixed size, or the name of a dynamic axis (axes of one name have one size in one request)."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """One input or output: ``shape`` is whole, with the batch axis first where the signature is batched."""

    name: str
    datatype: str
    shape: tuple[Dim, ...]
    optional: bool = False
    ragged: bool = False

    def dims(self, batched: bool) -> tuple[int, ...]:
        """The shape as ``config.pbtxt`` states it: without the batch axis, dynamic axes as -1."""
        shape = self.shape[1:] if batched else self.shape
        return tuple(dim if isinstance(dim, int) else -1 for dim in shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.datatype}[{','.join(map(str, self.shape))}]"

    def to_json(self) -> dict[str, Any]:
        data: dict[str, Any] = {"name": self.name, "datatype": self.datatype, "shape": list(self.shape)}
        if self.optional:
            data["optional"] = True
        if self.ragged:
            data["ragged"] = True
        return data


@dataclass(frozen=True, slots=True)
class Signature:
    """All inputs and outputs; ``batched`` when axis 0 of every one of them is the batch."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    batched: bool

    def input(self, name: str) -> Tensor | None:
        """The input called ``name``."""
        return next((tensor for tensor in self.inputs if tensor.name == name), None)

    def output(self, name: str) -> Tensor | None:
        """The output called ``name``."""
        return next((tensor for tensor in self.outputs if tensor.name == name), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": [tensor.to_json() for tensor in self.inputs],
            "outputs": [tensor.to_json() for tensor in self.outputs],
            "batched": self.batched,
        }

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Signature:
        def tensors(items: Sequence[Mapping[str, Any]]) -> tuple[Tensor, ...]:
            return tuple(
                Tensor(
                    item["name"],
                    item["datatype"],
                    tuple(item["shape"]),
                    bool(item.get("optional", False)),
                    bool(item.get("ragged", False)),
                )
                for item in items
            )

        return Signature(tensors(data["inputs"]), tensors(data["outputs"]), bool(data["batched"]))


def parse_type(text: str) -> tuple[str, tuple[Dim, ...]]:
    """Read ``FP32[3,-1,width]``: a data type and the dims of one item; -1 and names are dynamic, ``[]`` is a scalar.

    Raises:
        SpecError: the text is not of that form.
    """
    match = type_pattern.match(text)
    if match is None:
        raise SpecError(
            f"'{text}' is no tensor type", expected="TYPE[dims], such as FP32[3,224,224], BYTES[1], INT64[-1]"
        )
    dims: list[Dim] = []
    inner = match.group(2)
    for axis, part in enumerate(p.strip() for p in inner.split(",")) if inner else ():
        if re.fullmatch(r"-?\d+", part):
            size = int(part)
            if size < -1 or size == 0:
                raise SpecError(
                    f"'{text}' has the size {size} on axis {axis}", expected="a positive size, -1, or a name"
                )
            dims.append(size if size > 0 else f"?{axis}")
        elif re.fullmatch(r"[A-Za-z_]\w*", part):
            dims.append(part)
        else:
            raise SpecError(f"'{text}' has '{part}' on axis {axis}", expected="a positive size, -1, or a name")
    return data_type(match.group(1)).name, tuple(dims)
