"""``import-onnx``: an ONNX file as an artifact with a proven signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Dim, Signature, Tensor, parse_type
from tritonforge.errors import CheckFailed, ForgeError, Place, did_you_mean
from tritonforge.sources.onnx_file import facts, parse
from tritonforge.steps.onnx_session import open_session, run_session
from tritonforge.steps.step import Job, Needs

MODEL: Final = "model.onnx"
_PROBE_BATCHES: Final = (2, 3)
_CLEARLY: Final = 0.2


class ImportOnnx:
    """Reads the signature, loads the model once, and finds out by running it whether axis 0 is a batch.

    The configuration has ``inputs`` and ``outputs`` (refinements as ``{name: {type, optional, ragged}}``), ``batched``
    (null to find out), ``axes`` and ``ranges`` for the probe's inputs, and ``place`` is not part of it: messages name
    the source file.
    """

    name = "import-onnx"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(256 << 20) + 3 * input_bytes, tools=("onnx", "onnxruntime"))

    def run(self, job: Job) -> Draft:
        source = job.sources[MODEL]
        place = Place(source)
        found = facts(parse(source), place)
        for path, file in job.sources.items():
            place_file(file, inside(job.out, path))
        missing = [name for name in found.external if name not in job.sources]
        if missing:
            raise CheckFailed(
                "external data is missing", place=place, found=", ".join(missing), expected="beside the model"
            )
        signature = found.signature
        session = open_session(job.out / MODEL, optimise=False, place=place)
        stated = job.config["batched"]
        notes: list[str] = []
        if stated is None and signature.batched:
            signature, note = _probed(session, signature, job.config)
            notes += [note] if note else []
        elif stated is not None:
            if stated and not signature.batched:
                raise CheckFailed(
                    "`batched: true`, but axis 0 is not dynamic everywhere",
                    place=place,
                    found="; ".join(map(str, (*signature.inputs, *signature.outputs))),
                    hint="export with a dynamic first axis, or drop `batched`",
                )
            signature = replace(signature, batched=bool(stated))
        signature = refine(signature, job.config["inputs"], job.config["outputs"], place)
        return Draft("onnx", signature, {**found.metadata(), "external": list(found.external), "notes": notes})


def _probed(session: Any, signature: Signature, config: Mapping[str, Any]) -> tuple[Signature, str | None]:
    """Run two batch sizes: axis 0 is the batch when every output follows it."""
    bounds = {name: tuple(sizes) for name, sizes in config["axes"].items()}
    sizes = axis_sizes(signature, bounds, largest=False)
    feeds: dict[str, Any] = {}
    outputs: dict[str, Any] = {}
    for batch in _PROBE_BATCHES:
        feeds = make_inputs(signature, batch=batch, sizes=sizes, seed=0, ranges=config["ranges"])
        try:
            outputs = run_session(session, feeds, Place())
        except ForgeError as error:
            one_symbol = len({tensor.shape[0] for tensor in (*signature.inputs, *signature.outputs)}) == 1
            note = f"could not be run at batch {batch} to see whether axis 0 is the batch: {error.found}"
            return replace(signature, batched=one_symbol), note
        wrong = [name for name, value in outputs.items() if not getattr(value, "shape", ()) or value.shape[0] != batch]
        if wrong:
            return replace(signature, batched=False), f"axis 0 is no batch: {', '.join(wrong)} did not follow it"
    mixed = _mixed(session, feeds, outputs)
    if mixed:
        return replace(signature, batched=False), f"axis 0 is no batch: rows of {', '.join(mixed)} depend on each other"
    return signature, None


def _mixed(session: Any, feeds: Mapping[str, Any], outputs: Mapping[str, Any]) -> list[str]:
    """The outputs whose rows are clearly others when each item runs alone: the server must not merge requests then.

    Quantisation at run time takes its scale from the whole batch, so that small differences mean nothing.
    """
    import numpy as np

    mixed = set()
    for row in range(_PROBE_BATCHES[-1]):
        try:
            alone = run_session(session, {name: value[row : row + 1] for name, value in feeds.items()}, Place())
        except ForgeError:
            return []  # it runs in batches only
        for name, whole in outputs.items():
            together = whole[row : row + 1]
            if alone[name].shape != together.shape:
                mixed.add(name)
            elif together.dtype.kind == "f":
                a, b = (np.nan_to_num(value.astype(np.float64)) for value in (alone[name], together))
                if np.linalg.norm(a - b) > _CLEARLY * max(np.linalg.norm(a), np.linalg.norm(b)):
                    mixed.add(name)
            elif together.size and np.mean(alone[name] != together) > 0.5:
                mixed.add(name)
    return sorted(mixed)


def refine(signature: Signature, inputs: Mapping[str, Any], outputs: Mapping[str, Any], place: Place) -> Signature:
    """The signature with what the spec adds: fixed sizes for dynamic axes, names for them, optional and ragged inputs.

    Raises:
        CheckFailed: the spec names a tensor that the model does not have, or contradicts its type or shape.
    """

    def one(tensor: Tensor, stated: Mapping[str, Any]) -> Tensor:
        datatype, dims = parse_type(stated["type"])
        shape: tuple[Dim, ...] = (tensor.shape[0], *dims) if signature.batched else dims
        fits = len(shape) == len(tensor.shape) and all(
            isinstance(own, str) or said == own for own, said in zip(tensor.shape, shape, strict=True)
        )
        if datatype != tensor.datatype or not fits:
            raise CheckFailed(
                f"the spec contradicts the model about '{tensor.name}'",
                place=place,
                expected=f"{tensor.datatype}{list(tensor.dims(signature.batched))} for one item"
                if signature.batched
                else f"{tensor.datatype}{list(tensor.shape)}",
                found=stated["type"],
            )
        named = tuple(
            own if isinstance(said, str) and said.startswith("?") else said
            for own, said in zip(tensor.shape, shape, strict=True)
        )
        return replace(tensor, shape=named, optional=bool(stated.get("optional")), ragged=bool(stated.get("ragged")))

    def all_of(tensors: tuple[Tensor, ...], stated: Mapping[str, Any], what: str) -> tuple[Tensor, ...]:
        names = [tensor.name for tensor in tensors]
        for name in stated:
            if name not in names:
                raise CheckFailed(f"the model has no {what} '{name}'", place=place, hint=did_you_mean(name, names))
        return tuple(one(tensor, stated[tensor.name]) if tensor.name in stated else tensor for tensor in tensors)

    return replace(
        signature,
        inputs=all_of(signature.inputs, inputs, "input"),
        outputs=all_of(signature.outputs, outputs, "output"),
    )
