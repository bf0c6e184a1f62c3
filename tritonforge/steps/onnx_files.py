"""What steps from ONNX to ONNX have in common: reading the whole model, writing it, and holding it against its source.

A protobuf ends at 2 GiB, so that a model with more weights cannot be held in one message: what works on the whole
model refuses it by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tritonforge.artifact.artifact import Draft, inside
from tritonforge.artifact.linking import place_file
from tritonforge.errors import CheckFailed, Place
from tritonforge.runners.kept import require_kept
from tritonforge.runners.onnx import MODEL
from tritonforge.sources.onnx_file import external_extents, facts, operator_domains, parse
from tritonforge.steps.step import Input, Job

if TYPE_CHECKING:
    import onnx

LARGEST: Final = (2 << 30) - (64 << 20)
"""The most bytes of one protobuf message, with room for what a step adds."""

DATA: Final = "model.onnx.data"
"""Where weights go that do not stand in the model's own file."""


def external_of(source: Input) -> list[str]:
    """The external data files of an ONNX artifact."""
    return list(source.artifact.metadata.get("external") or ())


def size_of(source: Input) -> int:
    """Bytes of the model with its external data."""
    return sum(source.artifact.files[path].size for path in (MODEL, *external_of(source)))


def refuse_large(source: Input, step: str, hint: str) -> None:
    """Refuse a model that one protobuf message cannot hold.

    Raises:
        CheckFailed: it has 2 GiB or more.
    """
    size = size_of(source)
    if size > LARGEST:
        raise CheckFailed(
            f"`{step}` cannot hold a model of {size / (1 << 30):.1f} GiB",
            place=Place(source.folder / MODEL),
            expected="less than 2 GiB with its external data, the most that one protobuf message can have",
            hint=hint,
        )


def load_whole(path: Path) -> onnx.ModelProto:
    """The model with its external data in memory.

    The files of an artifact are hard links into the store, which ``onnx``'s own loader takes for an attack.

    Raises:
        CheckFailed: external data lies outside of the model's folder.
    """
    from onnx import TensorProto
    from onnx.external_data_helper import _get_all_tensors, uses_external_data

    model = parse(path)
    external_extents(model, Place(path))
    for tensor in _get_all_tensors(model):
        if not uses_external_data(tensor):
            continue
        stated = {entry.key: entry.value for entry in tensor.external_data}
        with inside(path.parent, stated["location"]).open("rb") as stream:
            stream.seek(int(stated.get("offset") or 0))
            tensor.raw_data = stream.read(int(stated["length"])) if stated.get("length") else stream.read()
        del tensor.external_data[:]
        tensor.data_location = TensorProto.DEFAULT
    return model


def write(model: onnx.ModelProto, folder: Path, *, external: bool) -> list[str]:
    """Write ``model.onnx``, with its weights beside it where ``external``; the names of data files.

    Equal models give equal bytes.
    """
    from onnx import external_data_helper as helper

    if external:
        helper.convert_model_to_external_data(model, all_tensors_to_one_file=True, location=DATA)
        helper.write_external_data_tensors(model, str(folder))
    (folder / MODEL).write_bytes(model.SerializeToString(deterministic=True))
    return [DATA] if (folder / DATA).exists() else []


def drop_unused_domains(model: onnx.ModelProto) -> None:
    """Forget the operator sets that no node uses.

    ONNX Runtime's optimiser and quantiser import all that they know, and an older ONNX Runtime refuses a model for a
    version that it does not have, even of an operator set that nothing uses.
    """
    used = operator_domains(model).keys() | {"", "ai.onnx"}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def carry_others(source: Input, out: Path) -> None:
    """Bring along the files of the version folder that are no part of the model itself."""
    for path in source.artifact.files:
        if path != MODEL and path not in external_of(source):
            place_file(source.folder / path, inside(out, path))


def kept_draft(job: Job, what: str, hint: str, **metadata: Any) -> Draft:
    """The draft of ``job.out/model.onnx``, once it has its source's signature.

    Opset, domains and external data are read back from the file; everything else stays as the source's metadata has
    it, with ``metadata`` over it.

    Raises:
        CheckFailed: ``what`` has another signature than its source.
    """
    source = job.inputs["model"]
    assert source.artifact.signature is not None
    path = job.out / MODEL
    found = facts(parse(path), Place(path))
    require_kept(source.artifact.signature, found.signature, what=what, hint=hint)
    carry_others(source, job.out)
    merged: Mapping[str, Any] = {
        **source.artifact.metadata,
        **found.metadata(),
        # The producer is who made the source; what was done to it since is `made_by`.
        "producer": source.artifact.metadata.get("producer", found.producer),
        "external": list(found.external),
        **metadata,
    }
    return Draft("onnx", source.artifact.signature, dict(merged))


def made_by(source: Input, text: str) -> str:
    """Who made the artifact so far, and ``text`` after it."""
    before = source.artifact.metadata.get("made_by")
    return text if not before else f"{before}, {text}"
