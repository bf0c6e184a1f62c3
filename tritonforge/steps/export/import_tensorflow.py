"""``import-tensorflow``: a TensorFlow source as an artifact with a proven signature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.generate import axis_sizes, make_inputs
from tritonforge.artifact.linking import place_file
from tritonforge.artifact.signature import Dim, Signature, Tensor
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.probe import declared, probe, rows_mixed
from tritonforge.sources.tensorflow.framework import keras, tensorflow
from tritonforge.sources.tensorflow.load import load_function
from tritonforge.sources.tensorflow.loaded import Loaded
from tritonforge.steps.export.import_onnx import refine
from tritonforge.steps.step import Job, Needs


class ImportTensorFlow:
    """Loads the source, and finds out by running it which axes are dynamic and whether axis 0 is a batch.

    The configuration has ``recipe`` (how it is loaded), ``inputs`` and ``outputs`` (refinements; for a model that does
    not know its inputs, their declaration), ``batched`` (null to find out), and ``axes`` and ``ranges`` for the
    probe's inputs.
    """

    name = "import-tensorflow"
    version = 1

    def needs(self, config: Mapping[str, Any], input_bytes: int) -> Needs:
        return Needs(memory=(1 << 30) + 4 * input_bytes, tools=("tensorflow", "keras"))

    def run(self, job: Job) -> Draft:
        for path, file in job.sources.items():
            place_file(file, inside(job.out, path))
        recipe = {**job.config["recipe"], "declared": _declared(job.config)}
        try:
            loaded = load_function(job.out, recipe)
        except CheckFailed as error:
            error.place = _source_place(error.place, job)
            raise
        place = _source_place(loaded.place, job) or Place()
        ranges = {**loaded.ranges, **job.config["ranges"]}
        proven = _prove(loaded, job.config, ranges, place)
        metadata = {
            "recipe": recipe,
            "made_by": f"tensorflow {tensorflow().__version__}, keras {keras().__version__}",
            "generation": {"ranges": dict(loaded.ranges), "axes": {}},
            "notes": list(proven.notes),
        }
        return Draft("tensorflow", proven.signature, metadata)


@dataclass(frozen=True, slots=True)
class _Proven:
    signature: Signature
    notes: tuple[str, ...] = ()


def _prove(loaded: Loaded, config: Mapping[str, Any], ranges: Mapping[str, Any], place: Place) -> _Proven:
    """The signature by running the model: batched where axis 0 is dynamic and rows do not depend on each other."""
    open_axis = bool(loaded.inputs) and all(item.shape and isinstance(item.shape[0], str) for item in loaded.inputs)
    stated = config["batched"]
    if stated and not open_axis:
        raise CheckFailed(
            "`batched: true`, but axis 0 is not dynamic in every input",
            place=place,
            found="; ".join(map(str, loaded.inputs)),
            hint="export with a first axis of None, or drop `batched`",
        )
    if stated is False or not open_axis:
        return _probed(loaded, config, ranges, place, batched=False)
    found = _probed(loaded, config, ranges, place, batched=True if stated else None)
    if found.signature.batched and stated is None:
        mixed = _mixed(loaded, found.signature, config, ranges)
        if mixed:
            note = f"axis 0 is no batch: rows of {', '.join(mixed)} depend on each other"
            found = replace(found, signature=replace(found.signature, batched=False), notes=(*found.notes, note))
    if found.signature.batched:
        return found
    again = _probed(loaded, config, ranges, place, batched=False)
    return replace(again, notes=(*found.notes, *again.notes))


def _probed(
    loaded: Loaded, config: Mapping[str, Any], ranges: Mapping[str, Any], place: Place, *, batched: bool | None
) -> _Proven:
    is_batched = batched is not False
    inputs = tuple(
        replace(tensor, shape=("batch", *tensor.shape[1:])) if is_batched else tensor for tensor in loaded.inputs
    )
    known = refine(Signature(inputs, (), is_batched), config["inputs"], {}, place)
    names = loaded.outputs
    try:
        found = probe(loaded.run, known.inputs, batched=batched, axes=config["axes"], ranges=ranges, names=names)
    except CheckFailed as error:
        axes = {dim for tensor in known.inputs for dim in tensor.shape[is_batched:] if isinstance(dim, str)}
        if error.hint is None and len(known.inputs) > 1 and len(axes) > 1:
            error.hint = (
                "axes that must have one size get one name in the spec: "
                f"`inputs: {{{', '.join(f'{item.name}: {_shown(item, is_batched)}' for item in known.inputs)}}}`"
            )
        error.place = error.place if error.place and str(error.place) else place
        raise
    types = dict(zip(names, loaded.datatypes.values(), strict=True))
    outputs = tuple(replace(tensor, datatype=types[tensor.name]) for tensor in found.signature.outputs)
    signature = replace(found.signature, outputs=outputs)
    if not (signature.batched or batched is False):
        return _Proven(signature, found.notes)  # only whether it is a batch was asked: it is not
    signature = _moving(loaded, signature, names, config, ranges)
    return _Proven(refine(signature, {}, config["outputs"], place), found.notes)


def _shown(tensor: Tensor, batched: bool) -> str:
    dims = tensor.shape[1:] if batched else tensor.shape
    return f'"{tensor.datatype}[{",".join(str(dim) if isinstance(dim, int) else "length" for dim in dims)}]"'


def _moving(
    loaded: Loaded, signature: Signature, names: tuple[str, ...], config: Mapping[str, Any], ranges: Mapping[str, Any]
) -> Signature:
    """Output axes whose size depends on the values, not on sizes: other values of one shape move them."""
    open_axes = {
        name: [size is None for size in (value.shape.as_list() if value.shape.rank is not None else ())]
        for name, value in zip(names, loaded.function.structured_outputs, strict=True)
    }
    if not any(any(flags) for flags in open_axes.values()):
        return signature
    bounds = {name: (int(low), int(high)) for name, (low, high) in config["axes"].items()}
    sizes = axis_sizes(Signature(signature.inputs, (), signature.batched), bounds, largest=True)
    shapes = [
        {
            name: value.shape
            for name, value in zip(
                names,
                loaded.run(make_inputs(signature, batch=2, sizes=sizes, seed=seed, ranges=ranges)).values(),
                strict=True,
            )
        }
        for seed in range(3)
    ]

    def one(tensor: Tensor) -> Tensor:
        seen = [found[tensor.name] for found in shapes]
        dims: list[Dim] = list(tensor.shape)
        for axis, dim in enumerate(dims):
            if isinstance(dim, int) and len({shape[axis] for shape in seen}) > 1:
                dims[axis] = f"?{tensor.name}.{axis}"
        return replace(tensor, shape=tuple(dims))

    return replace(signature, outputs=tuple(map(one, signature.outputs)))


def _mixed(loaded: Loaded, signature: Signature, config: Mapping[str, Any], ranges: Mapping[str, Any]) -> list[str]:
    bounds = {name: (int(low), int(high)) for name, (low, high) in config["axes"].items()}
    sizes = axis_sizes(signature, bounds, largest=False)
    feeds = make_inputs(signature, batch=3, sizes=sizes, seed=0, ranges=ranges)
    return rows_mixed(loaded.run, feeds, loaded.run(feeds))


def _declared(config: Mapping[str, Any]) -> dict[str, Any]:
    """What the spec says of inputs and outputs, for models that do not know theirs."""
    batched = config["batched"] is not False
    return {
        "inputs": [
            [item.name, item.datatype, list(item.shape)] for item in declared(config["inputs"], batched=batched)
        ],
        "outputs": list(config["outputs"]),
    }


def _source_place(place: Place | None, job: Job) -> Place | None:
    """The source that lies behind a file of the artifact: messages name what the user wrote."""
    if place is None or place.file is None or not place.file.is_relative_to(job.out):
        return place
    relative = place.file.relative_to(job.out).as_posix()
    for path, source in sorted(job.sources.items()):
        if path == relative:
            return Place(source, place.line, place.field)
    below = [source for path, source in sorted(job.sources.items()) if path.startswith(f"{relative}/")]
    return Place(below[0], place.line, place.field) if len(below) == 1 else Place(field=relative)
