"""Checks of warm-up requests against the config's inputs.

Source: ``model_config.proto`` (ModelWarmup) and core ``TritonModelInstance::GenerateWarmupData``, which skips a sample
of batch 0 without a word.
"""

from __future__ import annotations

from typing import Any

from tritonforge.errors import did_you_mean
from tritonforge.repository.derive import datatype_name
from tritonforge.repository.schema import Path_
from tritonforge.repository.subject import Subject


def check(subject: Subject) -> None:
    """Raises SpecError for the first thing that is wrong."""
    inputs = {item.name: item for item in subject.message.input}
    for index, sample in enumerate(subject.message.model_warmup):
        path: Path_ = ("model_warmup", index)
        largest = max(1, subject.message.max_batch_size)
        if not 1 <= sample.batch_size <= largest:
            raise subject.wrong(
                (*path, "batch_size"),
                "the batch of a warm-up request is out of range",
                expected=f"1 to {largest}",
                found=sample.batch_size,
                hint="Triton skips samples without a batch size" if sample.batch_size == 0 else None,
            )
        for name, data in sample.inputs.items():
            _input(subject, name, data, inputs, (*path, "inputs", name))
        for name, item in inputs.items():
            if name not in sample.inputs and not item.optional:
                raise subject.wrong(
                    (*path, "inputs"), f"a warm-up request lacks the input '{name}'", expected=", ".join(inputs)
                )


def _input(subject: Subject, name: str, data: Any, inputs: dict[str, Any], path: Path_) -> None:
    if name not in inputs:
        raise subject.wrong(path, f"the model has no input '{name}'", hint=did_you_mean(name, inputs))
    item = inputs[name]
    if data.data_type != item.data_type:
        raise subject.wrong(
            (*path, "data_type"),
            f"the warm-up data of '{name}' has another type than the input",
            expected=datatype_name(item.data_type),
            found=datatype_name(data.data_type) if data.data_type else "none",
        )
    fits = len(item.dims) == len(data.dims) and all(
        have > 0 and want in (-1, have) for want, have in zip(item.dims, data.dims, strict=True)
    )
    if not fits:
        raise subject.wrong(
            (*path, "dims"),
            f"the warm-up data of '{name}' does not fit the input",
            expected=f"{list(item.dims)} with sizes for -1",
            found=list(data.dims),
        )
    if data.WhichOneof("input_data_type") is None:
        raise subject.wrong(
            path,
            f"the warm-up data of '{name}' is missing",
            expected="zero_data: true, random_data: true, or input_data_file: …",
        )
