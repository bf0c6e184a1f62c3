"""From a source as the spec names it to the node that imports it."""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.artifact.signature import Signature
from tritonforge.build.graph import Graph, Node
from tritonforge.errors import CheckFailed, ForgeError, Place, SpecError
from tritonforge.runners.onnx import MODEL
from tritonforge.runners.probe import declared
from tritonforge.sources import onnx_file
from tritonforge.sources.formats import detect
from tritonforge.sources.huggingface.files import model_files, processor_files
from tritonforge.sources.model_folder import CONFIG
from tritonforge.sources.resolve import Resolver, SourceFile
from tritonforge.spec.load import LoadedSpec
from tritonforge.spec.models import ModelSpec
from tritonforge.spec.source import SourceRef

TORCH_KINDS: Final = ("torchscript", "torch-export", "torch-module", "torch-pickle", "architecture", "huggingface")
TENSORFLOW_KINDS: Final = ("savedmodel", "keras", "graphdef", "tf-checkpoint")


@dataclass(frozen=True, slots=True)
class Imported:
    """The node that imports a source; ``kind`` is what the source is, ``format`` what its artifact is."""

    kind: str
    format: str
    node: str


@dataclass(frozen=True, slots=True)
class Importing:
    """What planning the import of one model reads."""

    graph: Graph
    name: str
    model: ModelSpec
    loaded: LoadedSpec
    resolver: Resolver

    def place(self, *path: str) -> Place:
        """Where a key of the model is written."""
        return self.loaded.place("models", self.name, *path)


def plan_import(asked: Importing) -> Imported:
    """The node that imports the model's source.

    Raises:
        SpecError: the source is missing, or nothing tells what it is.
    """
    model, resolver = asked.model, asked.resolver
    sources = {} if model.source.architecture else resolver.tree(model.source, asked.place("source"))
    kind = _kind(asked, sources)
    plan: Callable[[Importing, str, Mapping[str, SourceFile]], str]
    if kind == "python":
        format_, plan = "python", _python
    elif kind == "onnx":
        format_, plan = "onnx", _onnx
    elif kind == "processor":
        format_, plan = "python", _processor
    elif kind == "huggingface":
        format_, plan = "torch", _huggingface
    elif kind in TORCH_KINDS:
        format_, plan = "torch", _torch
    else:
        format_, plan = "tensorflow", _tensorflow
    if format_ != kind and model.files:
        raise SpecError(
            "`files` go with ONNX and Python sources",
            place=asked.place("files"),
            hint="files of the model's folder are `folder_files`",
        )
    return Imported(kind, format_, plan(asked, kind, sources))


def _kind(asked: Importing, sources: Mapping[str, SourceFile]) -> str:
    model = asked.model
    if model.source.architecture is not None:
        return "architecture"
    if model.huggingface.part != "model":
        return "processor"
    kind: str | None = model.format
    if kind is None and model.torch.module is not None:
        kind = "torch-module"
    if kind is None and model.tensorflow.factory is not None:
        kind = "tf-checkpoint"
    if kind is None and model.source.hub is not None:
        kind = "huggingface"
    if kind is None and any(path.endswith(".onnx") and "/" not in path for path in sources):
        kind = "onnx"
    if kind is None and ("model.py" in sources or (len(sources) == 1 and next(iter(sources)).endswith(".py"))):
        kind = "python"
    if kind is None:
        where = _root(model.source, sources, asked.resolver)
        kind = None if where is None else detect(where)
    if kind == "torch-weights":
        raise SpecError(
            "a state dict alone is no model",
            place=asked.place("source"),
            found=", ".join(sorted(sources)[:3]),
            expected="the module that it belongs to",
            hint="name it with `torch: {module: PACKAGE.MODULE:NAME}`, or give the architecture as the source and "
            "the file as `torch.weights`",
        )
    if kind is None and len(sources) == 1 and Path(next(iter(sources))).suffix in (".pt", ".pth", ".pt2", ".keras"):
        raise CheckFailed(
            "a source is damaged, or not what its name says",
            place=asked.place("source"),
            found=str(next(iter(sources.values())).path),
            hint="`tritonforge inspect` tells what of it can be read; export or copy it again",
        )
    if kind not in ("onnx", "python", *TORCH_KINDS, *TENSORFLOW_KINDS):
        raise SpecError(
            "cannot tell what this source is",
            place=asked.place("source"),
            expected="an ONNX, PyTorch, TensorFlow or Hugging Face model, or a model.py",
            found=kind or ", ".join(sorted(sources)[:5]) or "an empty folder",
            hint="`format: triton` takes a model's folder of a Triton repository as it is"
            if CONFIG in sources
            else "say it with `format:`; `format: passthrough` serves files as they are, by any backend",
        )
    return kind


def _root(source: SourceRef, sources: Mapping[str, SourceFile], resolver: Resolver) -> Path | None:
    """The file or folder that the source names, as it lies on this machine."""
    if not sources:
        return None
    path, file = next(iter(sorted(sources.items())))
    if len(sources) == 1 and not resolver.is_folder(source):
        return file.path
    return file.path.parents[len(PurePosixPath(path).parts) - 1]


def _shared_config(model: ModelSpec) -> dict[str, Any]:
    """What every import reads of the spec."""
    return {
        "inputs": {key: value.model_dump() for key, value in model.inputs.items()},
        "outputs": {key: value.model_dump() for key, value in model.outputs.items()},
        "batched": model.batched,
        "axes": golden_axes(model),
        "ranges": golden_ranges(model),
    }


def golden_axes(model: ModelSpec) -> dict[str, list[int]]:
    """Smallest and largest sizes of dynamic axes, as steps read them."""
    return {axis: list(sizes) for axis, sizes in model.golden.axes.items()}


def golden_ranges(model: ModelSpec) -> dict[str, dict[str, Any]]:
    """Value ranges of inputs, as steps read them."""
    return {name: limits.model_dump(exclude_none=True) for name, limits in model.golden.ranges.items()}


def extra_files(
    asked: Importing,
    stated: Mapping[str, SourceRef],
    path: tuple[str, ...],
    taken: Mapping[str, SourceFile] | None = None,
) -> dict[str, SourceFile]:
    """The files that ``stated`` asks for, by the path they get; none may stand where one of ``taken`` stands."""
    files: dict[str, SourceFile] = dict(taken or {})
    for target, source in stated.items():
        place = asked.place(*path, target)
        if not is_inside(target):
            raise SpecError("a path leaves the model's folder", place=place, found=target)
        at = PurePosixPath(target).as_posix()
        tree = asked.resolver.tree(source, place)
        added = (
            {f"{at}/{name}": file for name, file in tree.items()}
            if asked.resolver.is_folder(source)
            else {at: next(iter(tree.values()))}
        )
        folders = {above.as_posix() for name in files for above in PurePosixPath(name).parents}
        for name in sorted(added):
            above = {path.as_posix() for path in PurePosixPath(name).parents}
            if name in files or name in folders or above & files.keys():
                raise SpecError("two files want one place", place=place, found=name)
        files.update(added)
    return {name: file for name, file in files.items() if name not in (taken or {})}


def _node(asked: Importing, step: str, config: Mapping[str, Any], sources: Mapping[str, SourceFile]) -> str:
    return asked.graph.add(Node(f"{asked.name}/{step}", asked.name, step, config, {}, sources))


def _under(folder: str, files: Mapping[str, SourceFile]) -> dict[str, SourceFile]:
    return {f"{folder}/{path}": file for path, file in files.items()}


def _python(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    model = asked.model
    if not model.outputs:
        raise SpecError(
            "a Python model states its `outputs`", place=asked.place(), expected="`outputs: {NAME: TYPE[dims]}`"
        )
    files = dict(sources)
    if len(files) == 1 and not asked.resolver.is_folder(model.source):
        files = {"model.py": next(iter(sources.values()))}
    if "model.py" not in files:
        raise SpecError("the folder of a Python model has no model.py", place=asked.place("source"))
    extra = extra_files(asked, model.files, ("files",), files)
    batched = model.batched if model.batched is not None else bool(model.max_batch_size)
    stated = _shared_config(model)
    signature = Signature(
        declared(stated["inputs"], batched=batched), declared(stated["outputs"], batched=batched), batched
    )
    config = {"signature": signature.to_json(), "requirements": sorted(model.requirements)}
    return _node(asked, "import-python", config, {**files, **extra})


def _onnx(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    networks = sorted(path for path in sources if path.endswith(".onnx") and "/" not in path)
    if len(networks) > 1:
        raise SpecError(
            "a source folder has several ONNX files",
            place=asked.place("source"),
            found=", ".join(networks),
            hint="name one file",
        )
    main = sources[networks[0]] if networks else next(iter(sources.values()))
    files = {MODEL: main, **_external(main, asked.resolver, link=asked.model.source.link)}
    files.update(extra_files(asked, asked.model.files, ("files",), files))
    config = _shared_config(asked.model)
    if asked.model.sequence is not None:
        # What the spec says of tensors is about those that clients see: a later step makes them.
        config = {**config, "inputs": {}, "outputs": {}, "batched": False}
    return _node(asked, "import-onnx", config, files)


def _torch(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    model, torch = asked.model, asked.model.torch
    if kind == "torch-module" and torch.module is None:
        raise SpecError(
            "a PyTorch module is made by a class or function that the spec names",
            place=asked.place("torch"),
            expected="`torch: {module: PACKAGE.MODULE:NAME}`",
        )
    files = _under("model", sources)
    files.update(_under("code", extra_files(asked, torch.code, ("torch", "code"))))
    weights = None
    if torch.weights is not None:
        file = asked.resolver.file(torch.weights, asked.place("torch", "weights"))
        weights = f"weights/{file.path.name}"
        files[weights] = file
    recipe = {
        "kind": kind,
        "architecture": model.source.architecture,
        "module": torch.module,
        "arguments": torch.arguments,
        "weights": weights,
        "state_key": torch.state_key,
        "strict": torch.strict,
        "allow_pickle": torch.allow_pickle,
        "sample": torch.sample,
    }
    config = {"recipe": recipe, **_shared_config(model)}
    return _node(asked, "import-torch", config, files)


def _huggingface(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    model = asked.model
    recipe = {"kind": kind, **model.huggingface.model_dump(), "source": str(model.source)}
    config = {"recipe": recipe, **_shared_config(model)}
    files = _under("model", {name: sources[name] for name in model_files(sources)})
    return _node(asked, "import-huggingface", config, files)


def _processor(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    model = asked.model
    config = {"recipe": {**model.huggingface.model_dump(), "source": str(model.source)}, **_shared_config(model)}
    files = _under("model", {name: sources[name] for name in processor_files(sources)})
    return _node(asked, "package-processor", config, files)


def _tensorflow(asked: Importing, kind: str, sources: Mapping[str, SourceFile]) -> str:
    model, tensorflow = asked.model, asked.model.tensorflow
    files = _under("model", {**sources, **_shards(sources, asked.resolver, link=model.source.link)})
    files.update(_under("code", extra_files(asked, tensorflow.code, ("tensorflow", "code"))))
    recipe = {"kind": kind, **tensorflow.model_dump(exclude={"code"})}
    config = {"recipe": recipe, **_shared_config(model)}
    return _node(asked, "import-tensorflow", config, files)


def _shards(sources: Mapping[str, SourceFile], resolver: Resolver, *, link: bool) -> dict[str, SourceFile]:
    """The data files of a TensorFlow checkpoint that is named by its ``.index`` alone."""
    if len(sources) != 1:
        return {}
    (index,) = sources.values()
    if index.path.suffix != ".index":
        return {}
    beside = sorted(index.path.parent.glob(f"{glob.escape(index.path.stem)}.data-*"))
    return {path.name: resolver.read(path, link=link) for path in beside if path.is_file()}


def _external(main: SourceFile, resolver: Resolver, *, link: bool) -> dict[str, SourceFile]:
    """The external data files that the model names; remembered by its digest, so that it is parsed once."""
    names = resolver.digests.fact(main.sha256, "onnx-external")
    if names is None:
        try:
            model = onnx_file.parse(main.path)
            names = list(onnx_file.external_files(model, Place(main.path)))
        except ForgeError:
            return {}  # the import step says what is wrong with the file, with its log
        resolver.digests.remember(main.sha256, "onnx-external", names)
    found = {}
    for name in names:
        path = main.path.parent / name
        if path.is_file():
            # Links are followed as far as the model's own folder: a hub's cache links both model and data to one.
            homes = (main.path.parent.resolve(), main.path.resolve().parent)
            if not any(path.resolve().is_relative_to(home) for home in homes):
                raise SpecError("external data is a link that leads out of the model's folder", found=str(path))
            found[name] = resolver.read(path, link=link)
    return found
