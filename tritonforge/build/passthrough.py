"""Models that are served as they are: their files are collected, and nothing is converted."""

from __future__ import annotations

from collections.abc import Mapping

from tritonforge.build.graph import Line, ModelNodes, Node
from tritonforge.build.imports import Importing, extra_files
from tritonforge.errors import Place, SpecError
from tritonforge.sources.model_folder import CONFIG, CONFIGS, check_size, read_folder
from tritonforge.sources.resolve import SourceFile
from tritonforge.spec.conversion.effective import conversions


def plan_passthrough(asked: Importing) -> ModelNodes:
    """A node for the files of every version, for the config as given, and for the files beside it.

    Raises:
        SpecError: the source is missing, or has no version.
    """
    return _folder(asked) if asked.model.format == "triton" else _artefact(asked)


def _folder(asked: Importing) -> ModelNodes:
    """A model's folder as it is in a repository; the labels of its lines are the numbers of its versions."""
    model, resolver, place = asked.model, asked.resolver, asked.place("source")
    files = resolver.tree(model.source, place, compiled=True)
    if not resolver.is_folder(model.source):
        raise SpecError(
            "the source is a file",
            place=place,
            expected="a model's folder of a Triton repository, with its config.pbtxt and version folders",
            found=str(model.source),
            hint="`format: passthrough` takes a file as it is",
        )
    parts = read_folder(files, resolver.subfolders(model.source, files), place)
    # Version control keeps no empty folders: the spec can say of a version that has no files that it is there.
    versions = {**({} if model.version is None else {model.version: ()}), **parts.versions}
    if not versions:
        raise SpecError(
            "the model's folder has no version",
            place=place,
            expected="a folder such as 1/ in it, with the model's files",
            found=", ".join(sorted(files)[:6]) or "nothing",
            hint="a version without any files is said by `version: 1`; "
            "`format: passthrough` takes the files of one version as they are",
        )
    lines = [
        _line(asked, str(number), {path: files[f"{number}/{path}"] for path in versions[number]})
        for number in sorted(versions)
    ]
    base = _collect(asked, "config", {CONFIG: files[CONFIG]}) if parts.config else None
    beside = _collect(asked, "folder-files", {path: files[path] for path in parts.beside}) if parts.beside else None
    return _nodes(lines, base, beside, "triton")


def _artefact(asked: Importing) -> ModelNodes:
    """The files of one version, with the config and the files beside it from wherever the spec says."""
    model, resolver = asked.model, asked.resolver
    files = resolver.tree(model.source, asked.place("source"), compiled=True)
    if CONFIG in files:
        raise SpecError(
            "the source folder holds a config.pbtxt, which has no place among the files of a version",
            place=asked.place("source"),
            found=str(files[CONFIG].path),
            hint="`format: triton` takes a model's folder of a repository; `base:` names a config that lies elsewhere",
        )
    files = {**files, **extra_files(asked, model.files, ("files",), files)}
    base = None
    if model.base is not None:
        base = _collect(asked, "config", {CONFIG: resolver.file(model.base, asked.place("base"))})
    beside = None
    if model.folder_files:
        found = extra_files(asked, model.folder_files, ("folder_files",))
        for path in found:
            top, _, rest = path.partition("/")
            variant = top == CONFIGS and path.endswith(".pbtxt") and "/" not in rest
            if path == CONFIG or top[:1].isdigit() or (top == CONFIGS and not variant):
                raise SpecError(
                    "this path belongs to Triton",
                    place=asked.place("folder_files", path),
                    expected="neither config.pbtxt nor a name that begins with a digit; configs/NAME.pbtxt is another "
                    "config",
                    found=path,
                )
        beside = _collect(asked, "folder-files", found)
    return _nodes([_line(asked, "", files)], base, beside, "passthrough")


def _collect(asked: Importing, name: str, files: Mapping[str, SourceFile]) -> str:
    for path, file in files.items():
        if path.endswith(".pbtxt") and name in ("config", "folder-files"):
            check_size(file.size, Place(file.path))
    return asked.graph.add(Node(f"{asked.name}/{name}", asked.name, "collect", {}, {}, files))


def _line(asked: Importing, label: str, files: Mapping[str, SourceFile]) -> Line:
    node = _collect(asked, f"version.{label}" if label else "version", files)
    (conversion,) = conversions(asked.model)
    # Which backend it is says the config, which is read when the release is composed.
    return Line(label, asked.model.backend or "", node, None, None, conversion)


def _nodes(lines: list[Line], base: str | None, beside: str | None, kind: str) -> ModelNodes:
    served = tuple(lines)
    return ModelNodes(kind, "files", lines[-1].artifact, served, served, folder_files=beside, base=base)
