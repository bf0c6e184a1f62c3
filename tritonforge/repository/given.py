"""A config that was given, with what the spec lays over it: taken as it is where the spec says nothing.

Nothing is derived and nothing is styled: what the file leaves out is left to the server's auto-completion.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tritonforge.artifact.signature import Signature
from tritonforge.errors import Place, SpecError
from tritonforge.repository import tree
from tritonforge.repository.checks import check_known
from tritonforge.repository.config import GeneratedConfig, Origin
from tritonforge.repository.derive import served_signature
from tritonforge.repository.pbtxt import ModelConfig, new, parse, to_text
from tritonforge.repository.reading import from_message, read
from tritonforge.repository.request import ENSEMBLE, ConfigRequest, Layer
from tritonforge.repository.subject import Subject
from tritonforge.spec.document import dotted
from tritonforge.spec.platform import Platform

LEFT_TO_THE_SERVER: Final = "# The model came without a config.pbtxt: all of it is left to Triton's auto-completion.\n"

_BACKEND_OF_PLATFORM: Final = {
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
}
_BACKEND_OF_FILE: Final = {
    "model.savedmodel": "tensorflow",
    "model.graphdef": "tensorflow",
    "model.plan": "tensorrt",
    "model.onnx": "onnxruntime",
    "model.xml": "openvino",
    "model.pt": "pytorch",
    "model.py": "python",
}


@dataclass(frozen=True, slots=True)
class GivenRequest:
    """``name`` is the folder's, ``public_name`` what the model is called in the spec.

    ``text`` is that of the ``config.pbtxt``, None where there is none, and ``place`` where it stands. ``under`` lies
    below it, ``layers`` above, the later ones over the earlier.
    """

    name: str
    public_name: str
    platform: Platform
    text: str | None
    place: Place
    under: tuple[Layer, ...] = ()
    layers: tuple[Layer, ...] = field(default=())


def given_config(request: GivenRequest) -> GeneratedConfig:
    """The config; its text is the very file's where nothing changes what it says.

    Raises:
        SpecError: the file is no config, a layer is wrong, or the platform's Triton does not know a field.
    """
    base = new() if request.text is None else parse(request.text, request.place.file)
    label = "config.pbtxt" if request.place.file is None else str(request.place.file)
    merged = from_message(base, label, request.place)
    for layer in reversed(request.under):
        merged = tree.merge(read(layer.values, layer.label, layer.place), merged)
    for layer in request.layers:
        merged = tree.merge(merged, read(layer.values, layer.label, layer.place))
    said = tree.get(merged, ("name",))
    if said is not None and said.value == request.public_name != request.name:
        follows = tree.Node(request.name, tree.Source("the folder's name"))
        merged = tree.Node({**merged.value, "name": follows}, merged.source)
    message = tree.to_message(merged)
    # What no layer touches is the file's own, down to what a tree of plain values cannot hold.
    if message == base:
        message = base
        text = LEFT_TO_THE_SERVER if request.text is None else request.text
    else:
        text = to_text(message)
    asked = ConfigRequest(request.name, message.backend, signature_of(message), request.platform)
    check_known(Subject(asked, message, merged))
    return GeneratedConfig(
        message,
        text,
        tuple(
            Origin(dotted(path), tree.plain(node), node.source.label, node.source.place)
            for path, node in tree.leaves(merged)
        ),
    )


def read_given(content: bytes, file: Path) -> str:
    """The text of a ``config.pbtxt`` from its bytes.

    Raises:
        SpecError: it is no UTF-8.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SpecError("a config.pbtxt is not UTF-8 text", place=Place(file), found=str(error)) from None


def signature_of(message: ModelConfig) -> Signature:
    """What clients see, as far as the config says it; no tensors where it leaves any of them to the server."""
    whole = all(item.name and item.data_type and item.dims for item in (*message.input, *message.output))
    if not whole or not message.input or not message.output:
        return Signature((), (), False)
    return served_signature(message, Signature((), (), False))


def backend_of(message: ModelConfig, name: str, files: Iterable[str]) -> str | None:
    """The backend that Triton gives a model, ``ensemble`` for an ensemble; None where nothing says it.

    ``files`` are the paths below a version's folder. Source: core ``AutoCompleteBackendFields``: by the file that each
    backend looks for, else by what stands behind the first dot of the model's name.
    """
    if message.platform == ENSEMBLE or message.HasField("ensemble_scheduling"):
        return ENSEMBLE
    if message.backend or message.platform:
        return str(message.backend or _BACKEND_OF_PLATFORM.get(message.platform, message.platform))
    tops = {path.split("/", 1)[0] for path in files}
    for file, backend in _BACKEND_OF_FILE.items():
        if file in tops or (message.default_model_filename and _like(message.default_model_filename, file)):
            return backend
    return name.partition(".")[2] or None


def _like(name: str, file: str) -> bool:
    """Whether a file of another name is of the kind that a backend looks for."""
    return Path(name).suffix == Path(file).suffix


def served_versions(message: ModelConfig, numbers: Sequence[int]) -> list[int]:
    """Those of the versions at hand that the config's policy has Triton load: the newest alone where it says none."""
    policy = message.version_policy
    chosen: str | None = policy.WhichOneof("policy_choice")
    ordered = sorted(numbers)
    if chosen == "all":
        return ordered
    if chosen == "specific":
        return [number for number in ordered if number in policy.specific.versions]
    count = policy.latest.num_versions if chosen == "latest" else 1
    return ordered[-max(1, count) :]


def steps_of(message: ModelConfig) -> list[tuple[str, int]]:
    """The folders and versions that an ensemble's config runs (-1 is the newest)."""
    return [(str(step.model_name), int(step.model_version)) for step in message.ensemble_scheduling.step]


__all__ = [
    "GivenRequest",
    "backend_of",
    "given_config",
    "read_given",
    "served_versions",
    "signature_of",
    "steps_of",
]
