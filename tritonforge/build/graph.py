"""The steps that a spec asks for on one platform."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from tritonforge.artifact.artifact import is_inside
from tritonforge.artifact.signature import Dim, Signature, Tensor, parse_type
from tritonforge.errors import ForgeError, Place, SpecError
from tritonforge.sources import onnx_file
from tritonforge.sources.resolve import Resolver, SourceFile
from tritonforge.spec.load import LoadedSpec
from tritonforge.spec.models import ModelSpec, SourceRef, TensorDecl
from tritonforge.spec.platform import Platform
from tritonforge.steps.export.import_onnx import MODEL

BACKENDS: Final[Mapping[str, tuple[str, ...]]] = {"onnx": ("onnxruntime",), "python": ("python",)}
"""The backends that can serve a source of each format, the default first."""

DEFAULT_LARGEST_BATCH: Final = 8
"""The largest batch that golden cases have where the spec leaves `max_batch_size` to the template."""


@dataclass(frozen=True, slots=True)
class Node:
    """One step of one model: ``inputs`` are other nodes by role, ``sources`` files by the path that the step sees."""

    id: str
    model: str
    step: str
    config: Mapping[str, Any]
    inputs: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, SourceFile] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ModelNodes:
    """Where a model's results come from: node ids, ``artifact`` being what is served."""

    format: str
    backend: str
    artifact: str
    golden: str | None = None
    parity: str | None = None
    folder_files: str | None = None


@dataclass(slots=True)
class Graph:
    """Nodes in an order in which each stands after its inputs; ``errors`` are of models that could not be planned."""

    nodes: dict[str, Node] = field(default_factory=dict)
    models: dict[str, ModelNodes] = field(default_factory=dict)
    errors: dict[str, ForgeError] = field(default_factory=dict)

    def add(self, node: Node) -> str:
        """Add a node; its id."""
        self.nodes[node.id] = node
        return node.id


def wanted_on(only: list[str] | None, platform: Platform) -> bool:
    """Whether a model, ensemble or gate is asked for on this platform."""
    return only is None or platform.name in only


def plan_graph(loaded: LoadedSpec, platform: Platform, resolver: Resolver) -> Graph:
    """The graph of every model that the platform wants. A model that cannot be planned leaves the others untouched."""
    graph = Graph()
    for name, model in loaded.spec.models.items():
        if not wanted_on(model.only, platform):
            continue
        try:
            graph.models[name] = _plan_model(graph, name, model, loaded, platform, resolver)
        except ForgeError as error:
            graph.errors[name] = error
    return graph


def _plan_model(
    graph: Graph, name: str, model: ModelSpec, loaded: LoadedSpec, platform: Platform, resolver: Resolver
) -> ModelNodes:
    place = loaded.place("models", name, "source")
    sources = resolver.tree(model.source, place)
    format_ = model.format or _format_of(model.source, sources)
    if format_ is None:
        raise SpecError(
            "cannot tell what this source is",
            place=place,
            expected="an .onnx file, a model.py, or a folder that holds one",
            found=", ".join(sorted(sources)[:5]) or "an empty folder",
            hint="say it with `format:`",
        )
    override = model.platforms.get(platform.name)
    backend = (override.backend if override else None) or model.backend or BACKENDS[format_][0]
    if backend not in BACKENDS[format_]:
        raise SpecError(
            f"the backend '{backend}' cannot be made from a source in {format_}",
            place=loaded.place("models", name, "backend"),
            expected=" or ".join(BACKENDS[format_]),
            found=backend,
        )
    folder_files = _folder_files(graph, name, model, loaded, resolver)
    if format_ == "python":
        return ModelNodes(
            "python", backend, _plan_python(graph, name, model, sources, loaded, resolver), None, None, folder_files
        )
    return _plan_onnx(graph, name, model, sources, loaded, platform, resolver, folder_files)


def _format_of(source: SourceRef, sources: Mapping[str, SourceFile]) -> str | None:
    name = Path(source.path or source.file or "").name
    if name.endswith(".onnx") or any(path.endswith(".onnx") and "/" not in path for path in sources):
        return "onnx"
    if name.endswith(".py") or "model.py" in sources:
        return "python"
    return None


def _folder_files(graph: Graph, name: str, model: ModelSpec, loaded: LoadedSpec, resolver: Resolver) -> str | None:
    if not model.folder_files:
        return None
    files = _extra(model.folder_files, ("models", name, "folder_files"), loaded, resolver)
    for path in files:
        first = path.split("/", 1)[0]
        if first == "config.pbtxt" or first[:1].isdigit() or first == "configs":
            raise SpecError(
                "this path belongs to Triton",
                place=loaded.place("models", name, "folder_files", path),
                expected="neither config.pbtxt, nor configs/, nor a name that begins with a digit",
                found=path,
            )
    return graph.add(Node(f"{name}/folder-files", name, "collect", {}, {}, files))


def _extra(
    stated: Mapping[str, SourceRef],
    path: tuple[str, ...],
    loaded: LoadedSpec,
    resolver: Resolver,
    taken: Mapping[str, SourceFile] | None = None,
) -> dict[str, SourceFile]:
    """The files that ``stated`` asks for, by the path they get; none may stand where one of ``taken`` stands."""
    files: dict[str, SourceFile] = dict(taken or {})
    for target, source in stated.items():
        place = loaded.place(*path, target)
        if not is_inside(target):
            raise SpecError("a path leaves the model's folder", place=place, found=target)
        at = PurePosixPath(target).as_posix()
        tree = resolver.tree(source, place)
        added = (
            {f"{at}/{name}": file for name, file in tree.items()}
            if resolver.is_folder(source)
            else {at: next(iter(tree.values()))}
        )
        folders = {above.as_posix() for name in files for above in PurePosixPath(name).parents}
        for name in sorted(added):
            above = {path.as_posix() for path in PurePosixPath(name).parents}
            if name in files or name in folders or above & files.keys():
                raise SpecError("two files want one place", place=place, found=name)
        files.update(added)
    return {name: file for name, file in files.items() if name not in (taken or {})}


def _declared(tensors: Mapping[str, TensorDecl], batched: bool) -> tuple[Tensor, ...]:
    made = []
    for name, stated in tensors.items():
        datatype, dims = parse_type(stated.type)
        shape: tuple[Dim, ...] = tuple(
            f"?{name}.{dim[1:]}" if isinstance(dim, str) and dim[0] == "?" else dim for dim in dims
        )
        made.append(Tensor(name, datatype, ("batch", *shape) if batched else shape, stated.optional, stated.ragged))
    return tuple(made)


def _plan_python(
    graph: Graph,
    name: str,
    model: ModelSpec,
    sources: Mapping[str, SourceFile],
    loaded: LoadedSpec,
    resolver: Resolver,
) -> str:
    place = loaded.place("models", name)
    if not model.outputs:
        raise SpecError("a Python model states its `outputs`", place=place, expected="`outputs: {NAME: TYPE[dims]}`")
    files = dict(sources)
    if len(files) == 1 and not resolver.is_folder(model.source):
        files = {"model.py": next(iter(sources.values()))}
    if "model.py" not in files:
        raise SpecError("the folder of a Python model has no model.py", place=loaded.place("models", name, "source"))
    extra = _extra(model.files, ("models", name, "files"), loaded, resolver, files)
    batched = model.batched if model.batched is not None else bool(model.max_batch_size)
    signature = Signature(_declared(model.inputs, batched), _declared(model.outputs, batched), batched)
    config = {"signature": signature.to_json(), "requirements": sorted(model.requirements)}
    return graph.add(Node(f"{name}/import-python", name, "import-python", config, {}, {**files, **extra}))


def _plan_onnx(
    graph: Graph,
    name: str,
    model: ModelSpec,
    sources: Mapping[str, SourceFile],
    loaded: LoadedSpec,
    platform: Platform,
    resolver: Resolver,
    folder_files: str | None,
) -> ModelNodes:
    place = loaded.place("models", name, "source")
    networks = sorted(path for path in sources if path.endswith(".onnx") and "/" not in path)
    if len(networks) > 1:
        raise SpecError(
            "a source folder has several ONNX files", place=place, found=", ".join(networks), hint="name one file"
        )
    main = sources[networks[0]] if networks else next(iter(sources.values()))
    files = {MODEL: main, **_external(main, resolver)}
    files.update(_extra(model.files, ("models", name, "files"), loaded, resolver, files))
    axes = {axis: list(sizes) for axis, sizes in model.golden.axes.items()}
    ranges = {axis: limits.model_dump(exclude_none=True) for axis, limits in model.golden.ranges.items()}
    config = {
        "inputs": {key: value.model_dump() for key, value in model.inputs.items()},
        "outputs": {key: value.model_dump() for key, value in model.outputs.items()},
        "batched": model.batched,
        "axes": axes,
        "ranges": ranges,
    }
    imported = graph.add(Node(f"{name}/import-onnx", name, "import-onnx", config, {}, files))
    override = model.platforms.get(platform.name)
    stated = (
        override.max_batch_size
        if override is not None and override.max_batch_size is not None
        else model.max_batch_size
    )
    largest = DEFAULT_LARGEST_BATCH if stated is None else max(1, stated)
    golden = graph.add(
        Node(
            f"{name}/golden",
            name,
            "golden",
            {
                "seed": model.golden.seed,
                "axes": axes,
                "ranges": ranges,
                "batches": sorted({1, min(3, largest), largest}),
                "tolerance": None
                if model.golden.tolerance is None
                else model.golden.tolerance.model_dump(exclude_none=True),
            },
            {"model": imported},
        )
    )
    served = imported
    if model.simplify:
        served = graph.add(Node(f"{name}/simplify", name, "simplify", {}, {"model": imported}))
    tolerance = None if model.tolerance is None else model.tolerance.model_dump(exclude_none=True)
    parity = graph.add(
        Node(f"{name}/parity", name, "parity", {"tolerance": tolerance}, {"model": served, "golden": golden})
    )
    return ModelNodes("onnx", "onnxruntime", served, golden, parity, folder_files)


def _external(main: SourceFile, resolver: Resolver) -> dict[str, SourceFile]:
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
            sha256, size = resolver.digests.digest(path)
            found[name] = SourceFile(path, sha256, size)
    return found
