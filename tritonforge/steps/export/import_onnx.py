"""``import-onnx``: an ONNX file as an artifact with a proven signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Dim, Signature, Tensor, parse_type
from tritonforge.errors import CheckFailed, Place, did_you_mean
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.onnx_session import open_session, run_session
from tritonforge.runners.probe import find_batch
from tritonforge.sources.onnx_file import external_extents, facts, free_empty_axes, parse
from tritonforge.steps.step import Job, Needs


class ImportOnnx:
    """Reads the signature, loads the model once, and finds out by running it whether axis 0 is a batch.

    The configuration has ``inputs`` and ``outputs`` (refinements as ``{name: {type, optional, ragged}}``), ``batched``
    (null to find out), ``axes`` and ``ranges`` for the probe's inputs, and ``place`` is not part of it: messages name
    the source file.
    """

    name = "import-onnx"
    version = 3

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(256 << 20) + 3 * input_bytes, tools=("onnx", "onnxruntime"))

    def run(self, job: Job) -> Draft:
        source = job.sources[MODEL]
        place = Place(source)
        model = parse(source)
        found = facts(model, place)
        freed = free_empty_axes(model)
        for path, file in job.sources.items():
            if not (freed and path == MODEL):
                place_file(file, inside(job.out, path))
        if freed:
            (job.out / MODEL).write_bytes(model.SerializeToString())
        missing = [name for name in found.external if name not in job.sources]
        if missing:
            raise CheckFailed(
                "external data is missing", place=place, found=", ".join(missing), expected="beside the model"
            )
        for path, needed in external_extents(model, place).items():
            size = job.sources[path].stat().st_size
            if size < needed:
                raise CheckFailed(
                    "external data is truncated",
                    place=Place(job.sources[path]),
                    expected=f"at least {needed} bytes, where the model's last tensor in it ends",
                    found=f"{size} bytes",
                    hint="copy it again, or compare its sha256 with the one where it came from",
                )
        signature = found.signature
        notes: list[str] = []
        if freed:
            signature = replace(facts(model, place).signature, batched=False)
            notes.append(f"an axis of size 0 became dynamic, as Triton has no such size: {', '.join(freed)}")
        del model
        session = open_session(job.out / MODEL, optimise=False, place=place)
        _refuse_always_empty(session, place)
        stated = job.config["batched"]
        if stated is None and signature.batched:
            found_out = find_batch(
                lambda feeds: run_session(session, dict(feeds), Place()),
                signature,
                axes=job.config["axes"],
                ranges=job.config["ranges"],
            )
            signature = found_out.signature
            notes += found_out.notes
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


def _refuse_always_empty(session: Any, place: Place) -> None:
    """Refuse axes that ONNX Runtime itself finds to be of size 0: Triton's backend holds its config to what it finds.

    Raises:
        CheckFailed: there is such an axis.
    """
    empty = [item.name for item in (*session.get_inputs(), *session.get_outputs()) if 0 in (item.shape or [])]
    if empty:
        raise CheckFailed(
            f"'{empty[0]}' has no elements whatever is asked, which Triton's config cannot state",
            place=place,
            expected="axes of a size of 1 or more, or dynamic ones",
            hint="export without it",
        )


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
