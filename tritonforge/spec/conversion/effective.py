"""What a line of a model is made with: the model's own settings under its variant's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from tritonforge.errors import SpecError
from tritonforge.spec.conversion.export import ExportSpec
from tritonforge.spec.conversion.onnxruntime import OnnxRuntimeSpec
from tritonforge.spec.conversion.openvino import OpenVinoSpec
from tritonforge.spec.conversion.pytorch import PytorchSpec
from tritonforge.spec.conversion.quantize import QuantizeSpec
from tritonforge.spec.conversion.variant import Variant
from tritonforge.spec.strict import Strict

if TYPE_CHECKING:
    from tritonforge.spec.models import ModelSpec

S = TypeVar("S", bound=Strict)


@dataclass(frozen=True, slots=True)
class Conversion:
    """One line from source to served artefact: ``label`` is the variant's or version's name, empty for the only one.

    ``tolerance`` is None where the precision decides; ``config`` and ``max_batch_size`` are the variant's alone.
    """

    label: str
    backend: str | None
    export: ExportSpec
    simplify: bool
    quantize: QuantizeSpec | None
    onnxruntime: OnnxRuntimeSpec
    pytorch: PytorchSpec
    openvino: OpenVinoSpec
    tolerance: Mapping[str, float] | None
    config: Mapping[str, Any]
    max_batch_size: int | None


def conversions(model: ModelSpec) -> tuple[Conversion, ...]:
    """The lines that a model asks for, in the spec's order."""
    named = {**model.variants, **model.versions}
    return tuple(_effective(model, label, variant) for label, variant in (named or {"": Variant()}).items())


def _effective(model: ModelSpec, label: str, variant: Variant) -> Conversion:
    stated = variant.tolerance or model.tolerance
    return Conversion(
        label=label,
        backend=variant.backend or model.backend,
        export=_over(model.export, variant.export),
        simplify=model.simplify if variant.simplify is None else variant.simplify,
        quantize=variant.quantize if "quantize" in variant.model_fields_set else model.quantize,
        onnxruntime=_over(model.onnxruntime, variant.onnxruntime),
        pytorch=_over(model.pytorch, variant.pytorch),
        openvino=_over(model.openvino, variant.openvino),
        tolerance=None if stated is None else stated.model_dump(exclude_none=True),
        config=variant.config,
        max_batch_size=variant.max_batch_size,
    )


def _over(below: S, above: S | None) -> S:
    """``below`` with the keys that ``above`` states."""
    if above is None:
        return below
    stated = {**below.model_dump(exclude_unset=True), **above.model_dump(exclude_unset=True)}
    try:
        return type(below).model_validate(stated)
    except ValidationError as error:
        first = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SpecError(f"what the model and its variant say do not go together: {first}") from None
