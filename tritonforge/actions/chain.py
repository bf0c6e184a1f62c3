"""What an ensemble should answer: its members asked one after the other, by its config's own maps.

It is the reference of ensembles that have no golden cases of their own: the members are proven against theirs, and
the wiring is proven against the members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import Case, CaseSet
from tritonforge.errors import CheckFailed
from tritonforge.repository.release import Release
from tritonforge.triton.client import Client

if TYPE_CHECKING:
    import numpy as np

Tensors = dict[str, "np.ndarray[Any, Any]"]


def ensemble_folder(release: Release, entry: Mapping[str, Any]) -> str | None:
    """The ensemble that answers for a public name: itself, or the one behind its router."""
    for other in release.models():
        if other["name"] == entry["name"] and other["kind"] == "ensemble":
            return str(other["folder"])
    return None


def chained_cases(release: Release, folder: str, signature: Signature, largest: int, client: Client) -> CaseSet:
    """Generated inputs at batch 1, an odd batch and the largest, with what the chain of members answers.

    Raises:
        CheckFailed: a member refuses what was generated; golden ranges or cases must say what valid inputs are.
    """
    datatypes = {tensor.name: tensor.datatype for tensor in (*signature.inputs, *signature.outputs)}
    cases = tuple(
        Case(name, inputs, _chain(release, folder, inputs, client)) for name, inputs in _generated(signature, largest)
    )
    return CaseSet("its members, one after the other", cases, datatypes, None)


def _generated(signature: Signature, largest: int) -> Iterator[tuple[str, Tensors]]:
    batches = sorted({1, min(3, largest), largest} - {0}) if signature.batched else [1]
    for flag, label in ((False, "small"), (True, "large")):
        sizes = axis_sizes(signature, {}, largest=flag)
        for batch in batches:
            yield f"batch{batch}-{label}", make_inputs(signature, batch=batch, sizes=sizes, seed=0)
        if not sizes:
            return


def _chain(release: Release, folder: str, inputs: Tensors, client: Client) -> Tensors:
    config = release.config(folder)
    pool = dict(inputs)
    waiting = list(config.ensemble_scheduling.step)
    produced = {tensor for step in waiting for tensor in step.output_map.values()} | set(inputs)
    while waiting:
        ready = [step for step in waiting if all(t in pool for t in step.input_map.values() if t in produced)]
        if not ready:
            raise CheckFailed(f"the steps of '{folder}' wait for each other")
        for step in ready:
            waiting.remove(step)
            feeds = {name: pool[tensor] for name, tensor in step.input_map.items() if tensor in pool}
            version = str(step.model_version) if step.model_version > 0 else ""
            types = {item.name: item.data_type for item in release.config(step.model_name).input}
            answers = client.infer(step.model_name, feeds, version=version, datatypes=_names(types, feeds))
            pool.update({tensor: answers[name] for name, tensor in step.output_map.items()})
    return {output.name: pool[output.name] for output in config.output}


def _names(types: Mapping[str, int], feeds: Mapping[str, Any]) -> dict[str, str]:
    from tritonforge.repository.derive import datatype_name

    return {name: datatype_name(types[name]) for name in feeds}
