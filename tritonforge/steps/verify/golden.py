"""``golden``: reference answers of the unchanged source at the batch sizes and shapes that break things."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge.artifact.artifact import Draft
from tritonforge.artifact.datatypes import BY_NAME
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.tensors import Case, CaseSet, write_cases
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.runner import open_runner
from tritonforge.steps.step import Job, Needs
from tritonforge.steps.tools import runner_tools
from tritonforge.steps.verify.samples import ITEM, as_item, sample_cases


class Golden:
    """Runs the source, in its own framework, with every optimisation off.

    The configuration has ``format`` (of the source's artifact), ``seed``, ``axes``, ``ranges``, ``batches`` (for
    batched models), ``tolerance`` and, where no case shall be generated, ``generated: false``. The source's own ranges
    and axes (``metadata["generation"]``) stand under those. Cases are named ``batch<N>-<small|large>``; without a batch
    ``small`` and ``large``; files of real inputs (the job's sources) by their names. Samples that the source brings
    (``metadata["samples"]``) stand instead of generated inputs, unless the configuration has ranges.
    """

    name = "golden"
    version = 3

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(512 << 20) + 3 * input_bytes, tools=runner_tools(config["format"]))

    def run(self, job: Job) -> Draft:
        source = job.inputs["model"]
        signature = source.artifact.signature
        assert signature is not None
        place = Place(source.folder)
        runner = open_runner(source.artifact, source.folder, optimise=False)
        config = with_generation(job.config, source.artifact.metadata)
        samples = source.artifact.metadata.get("samples")
        planned: list[tuple[str, Mapping[str, Any]]]
        if samples is not None and not job.config["ranges"] and job.config.get("generated", True):
            planned = sample_cases(source.folder / samples, signature, config["batches"])
        else:
            planned = [
                (
                    name,
                    make_inputs(signature, batch=batch, sizes=sizes, seed=config["seed"], ranges=config["ranges"]),
                )
                for name, batch, sizes in plan_cases(signature, config)
            ]
        planned += [
            (Path(name).with_suffix("").as_posix(), read_inputs(path, signature))
            for name, path in sorted(job.sources.items())
        ]
        cases = []
        for name, inputs in planned:
            try:
                outputs = runner.run(inputs)
            except CheckFailed as error:
                raise CheckFailed(
                    f"the source cannot answer the generated case '{name}'"
                    if not job.sources
                    else f"the source cannot answer '{name}'",
                    place=place,
                    found=error.found or error.message,
                    hint="declare what its inputs look like under `golden.axes` and `golden.ranges`, or give real ones "
                    "alone: `golden: {generated: false, inputs: [FILES.npz]}`",
                ) from None
            refuse_nan(name, outputs, place)
            case = Case(name, dict(inputs), outputs)
            cases.append(as_item(case) if samples is not None and name.startswith(ITEM) else case)
        datatypes = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
        reference = f"the source in {runner.title}, optimisations off"
        write_cases(job.out, CaseSet(reference, tuple(cases), datatypes, job.config["tolerance"]))
        return Draft("golden", signature, {"reference": reference, "cases": [case.name for case in cases]})


def with_generation(config: Mapping[str, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration with the source's own ``ranges`` and ``axes`` under those that the spec states."""
    own = metadata.get("generation") or {}
    return {
        **config,
        "axes": {**own.get("axes", {}), **config.get("axes", {})},
        "ranges": {**own.get("ranges", {}), **config.get("ranges", {})},
    }


def read_inputs(path: Path, signature: Signature) -> dict[str, Any]:
    """Real inputs of one case from an ``.npz`` file; nothing is unpickled.

    Raises:
        CheckFailed: it is no such file, or misses an input, or has one of another type or rank.
    """
    import numpy as np

    place = Place(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, MemoryError, zipfile.BadZipFile) as error:
        raise CheckFailed(
            "a file of inputs cannot be read", place=place, found=str(error), expected="an .npz of arrays"
        ) from None
    found = {}
    for tensor in signature.inputs:
        if tensor.name not in arrays:
            raise CheckFailed(
                f"a file of inputs has no '{tensor.name}'", place=place, found=", ".join(arrays) or "no arrays"
            )
        array = arrays[tensor.name]
        if not isinstance(array, np.ndarray) or (array.size == 0 and not _may_be_empty(tensor, signature.batched)):
            raise CheckFailed(f"'{tensor.name}' in a file of inputs is no array with values", place=place)
        if array.ndim != len(tensor.shape) or any(
            isinstance(dim, int) and dim != size for dim, size in zip(tensor.shape, array.shape, strict=True)
        ):
            raise CheckFailed(
                f"'{tensor.name}' in a file of inputs has another shape",
                place=place,
                expected=str(list(tensor.shape)),
                found=str(list(array.shape)),
            )
        wanted = BY_NAME[tensor.datatype].numpy or "float32"
        if wanted == "object":
            texts = np.empty(array.shape, dtype=object)
            texts.reshape(-1)[:] = [
                item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1).tolist()
            ]
            array = texts
        elif str(array.dtype) != wanted:
            raise CheckFailed(
                f"'{tensor.name}' in a file of inputs has another type",
                place=place,
                expected=wanted,
                found=str(array.dtype),
            )
        found[tensor.name] = array
    return found


def _may_be_empty(tensor: Tensor, batched: bool) -> bool:
    """Whether a request can have no elements there: an axis other than the batch is dynamic."""
    return any(isinstance(dim, str) for dim in tensor.shape[1 if batched else 0 :])


def refuse_nan(case: str, outputs: Mapping[str, Any], place: Place) -> None:
    """A reference of nothing but NaN proves nothing: whatever is NaN too would pass."""
    import numpy as np

    for name, array in outputs.items():
        if array.dtype.kind == "f" and array.size and np.isnan(array).all():
            raise CheckFailed(
                f"the source answers nothing but NaN in '{name}' of the case '{case}'",
                place=place,
                hint="say what its inputs look like under `golden.ranges`",
            )


def plan_cases(signature: Signature, config: Mapping[str, Any]) -> list[tuple[str, int, dict[str, int]]]:
    """Name, batch and axis sizes of each generated case; none where the configuration says ``generated: false``."""
    if not config.get("generated", True):
        return []
    bounds = {name: tuple(sizes) for name, sizes in config["axes"].items()}
    small, large = (axis_sizes(signature, bounds, largest=flag) for flag in (False, True))
    shapes = [("small", small)] if small == large else [("small", small), ("large", large)]
    if not signature.batched:
        return [(name, 1, sizes) for name, sizes in shapes]
    return [
        (f"batch{batch}-{name}", batch, sizes) for batch in sorted(set(config["batches"])) for name, sizes in shapes
    ]
