"""What a measured model is asked: its golden cases where it has any, generated inputs otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, read_cases
from tritonforge.errors import CheckFailed, EnvironmentLacks, UsageError, did_you_mean
from tritonforge.measure import write_input_data
from tritonforge.repository.release import Release

MAX_CASES: Final = 32


def load_data(
    release: Release, model: str, work: Path, *, batch_size: int, axes: Mapping[str, int], asking: str
) -> tuple[Path, Mapping[str, tuple[int, ...]]]:
    """A data file for perf_analyzer below ``work``, and the shapes of inputs with dynamic axes (without the batch).

    Raises:
        CheckFailed: the model's largest batch is smaller than ``batch_size``, or it answers sequences; ``asking`` is
            who wants it.
    """
    entry = release.served(model)
    signature = release.signature(model)
    known = {dim for tensor in signature.inputs for dim in tensor.shape if isinstance(dim, str)}
    for axis in axes:
        if axis not in known:
            raise UsageError(f"'{model}' has no dynamic axis '{axis}'", hint=did_you_mean(axis, known))
    if batch_size > max(1, int(entry["max_batch_size"])):
        raise CheckFailed(
            f"{asking} asks for larger batches than '{model}' takes",
            expected=f"{max(1, int(entry['max_batch_size']))} at most",
            found=str(batch_size),
        )
    cases: list[Mapping[str, Any]] = []
    folder = release.golden_folder(str(entry["name"])) / "files"
    if folder.is_dir():
        cases = [case.inputs for case in read_cases(folder).cases if case.item]
    if not cases:
        sizes = {**axis_sizes(signature, {}, largest=True), **axes}
        made = make_inputs(signature, batch=1, sizes=sizes, seed=0, ranges=None)
        cases = [_item(made, signature.batched)]
        for path in sorted(release.golden_folder(str(entry["name"])).glob("*/cases.json")):
            # The generated cases have valid values: the largest of them that is no batch is what is asked.
            first = _largest(read_cases(path.parent).cases)
            if first.sequence:
                raise CheckFailed(
                    f"'{model}' answers sequences, which cannot be measured with a fixed number of requests",
                    found="with a request count, perf_analyzer 2.51 also sends requests of sequences that it did not "
                    "start, and counts them as failed",
                    hint="leave this model out; `tritonforge validate` asks it whole sequences",
                )
            cases = [_item(first.inputs, signature.batched)]
    cases = [_sized(case, signature, axes) for case in cases]
    outline = {name: getattr(array, "shape", ()) for name, array in cases[0].items()}
    alike = [case for case in cases if {name: getattr(array, "shape", ()) for name, array in case.items()} == outline]
    if not alike:
        raise EnvironmentLacks("there is nothing to ask the model")
    dynamic = {
        tensor.name: tuple(int(size) for size in outline[tensor.name])
        for tensor in signature.inputs
        if tensor.name in outline and -1 in tensor.dims(signature.batched)
    }
    return write_input_data(work / "input.json", alike[:MAX_CASES], batch_size=batch_size), dynamic


def _item(inputs: Mapping[str, Any], batched: bool) -> dict[str, Any]:
    """The first item of a batch."""
    return {name: array[0] if batched else array for name, array in inputs.items()}


def _largest(cases: Sequence[Case]) -> Case:
    """The case with the most values among those of batch 1 (all, where no name says so)."""
    single = [case for case in cases if case.name.startswith("batch1-")] or list(cases)
    return max(single, key=lambda case: sum(array.size for array in case.inputs.values()))


def _sized(case: Mapping[str, Any], signature: Signature, axes: Mapping[str, int]) -> dict[str, Any]:
    """An item with the sizes that are asked for: its own values, cut short or said again."""
    import numpy as np

    made = dict(case)
    for tensor in signature.inputs:
        shape = tensor.shape[1:] if signature.batched else tensor.shape
        for place, dim in enumerate(shape):
            if isinstance(dim, str) and dim in axes and tensor.name in made and made[tensor.name].ndim > place:
                array = made[tensor.name]
                made[tensor.name] = np.take(array, np.arange(axes[dim]) % array.shape[place], axis=place)
    return made
