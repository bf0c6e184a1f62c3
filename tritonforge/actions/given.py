"""Models that are served as they are, on their way into a release: their config, their versions, what Triton loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.actions.config_layers import ConfigLayers
from tritonforge.actions.document import Composed
from tritonforge.actions.named_files import check_named_files
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Tensor, parse_type
from tritonforge.build.graph import Graph, ModelNodes
from tritonforge.errors import Place, SpecError
from tritonforge.repository.derive import tensor_values
from tritonforge.repository.given import (
    GivenRequest,
    backend_of,
    given_config,
    read_given,
    served_versions,
    signature_of,
    steps_of,
)
from tritonforge.repository.release import Stored
from tritonforge.repository.request import ENSEMBLE, Layer
from tritonforge.sources.model_folder import CONFIG, CONFIGS
from tritonforge.spec.models import PASSTHROUGH, ModelSpec, TensorDecl
from tritonforge.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class Given:
    """What a release gets of such a model: an entry for every version that Triton loads, oldest first."""

    parts: tuple[Composed, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GivenModel:
    """A model with what its config is made from; ``blob`` gives the bytes of an artifact's file."""

    name: str
    folder: str
    model: ModelSpec
    nodes: ModelNodes
    graph: Graph
    platform: Platform
    layers: ConfigLayers
    blob: Callable[[str, str], bytes]

    def place(self, *path: str | int) -> Place:
        """Where a key of the model is written."""
        return self.layers.place("models", self.name, *path)

    def given(self, versions: Mapping[int, Artifact], beside: Artifact | None) -> Given:
        """The entries over the files of all versions, by number, and those ``beside`` the config.

        Raises:
            SpecError: the config is wrong, nothing says the backend, or the policy serves none of the versions.
        """
        config = given_config(self._request())
        self._check_variants()
        newest = max(versions)
        backend = backend_of(config.message, self.folder, versions[newest].files)
        if backend is None:
            raise SpecError(
                f"nothing says which backend serves '{self.name}'",
                place=self.place(),
                expected="`backend:` in the spec or in the config.pbtxt, or a file such as model.onnx in the version",
                found=", ".join(sorted(versions[newest].files)[:6]) or "no files",
            )
        served = served_versions(config.message, list(versions))
        if not served:
            raise SpecError(
                f"the version policy of '{self.name}' serves none of its versions",
                place=self.place(),
                expected=" or ".join(str(number) for number in sorted(versions)),
                found=" ".join(str(config.message.version_policy).split()),
            )
        signature = signature_of(config.message)
        parts = tuple(
            Composed(
                self.name,
                self.folder,
                "ensemble" if backend == ENSEMBLE else "model",
                backend,
                number,
                versions[number].digest,
                config,
                signature,
                self.nodes.kind,
                label=str(number) if len(served) > 1 else "",
            )
            for number in served
        )
        warnings = self._doubts(config.message)
        for number in served:
            present = [f"{number}/{path}" for path in versions[number].files] + (
                [] if beside is None else [*beside.files]
            )
            try:
                check_named_files(config.message, present, number, lambda field: self.place("source"))
            except SpecError as error:
                # What somebody serves may look for its files in ways of its own: a word, and no refusal.
                warnings.append(f"{self.name}: {error.message}: {error.expected}")
        return Given(parts, tuple(warnings))

    def _request(self) -> GivenRequest:
        """The given config below what the spec says."""
        text, place = None, self.place("source")
        if self.nodes.base is not None:
            file = self.graph.nodes[self.nodes.base].sources[CONFIG].path
            text, place = read_given(self.blob(self.nodes.base, CONFIG), file), Place(file)
        layers = self.layers.member("models", self.name, self.model)
        under = self.layers.spec.platforms[self.platform.name].config
        if under:
            return GivenRequest(
                self.folder, self.name, self.platform, text, place, layers[:1], (*self._own(text), *layers[1:])
            )
        return GivenRequest(self.folder, self.name, self.platform, text, place, (), (*self._own(text), *layers))

    def _own(self, text: str | None) -> tuple[Layer, ...]:
        """What the model's own keys say, under its `config`."""
        model, override = self.model, self.model.platforms.get(self.platform.name)
        for key in ("template", "variant"):
            if override is not None and getattr(override, key) is not None:
                raise SpecError(
                    f"nothing reads `{key}` of a model with `format: {model.format}`",
                    place=self.place("platforms", self.platform.name, key),
                )
        values: dict[str, Any] = {}
        backend = (override.backend if override is not None else None) or model.backend
        if backend is not None:
            values["backend"] = backend
        largest = model.max_batch_size
        if override is not None and override.max_batch_size is not None:
            largest = override.max_batch_size
        if largest is not None:
            values["max_batch_size"] = largest
        batching = bool(largest)
        for key, tensors in (("input", model.inputs), ("output", model.outputs)):
            if tensors:
                values[key] = [_tensor(name, declared, batching) for name, declared in tensors.items()]
        return (Layer("the model in the spec", values, lambda path: self.place()),) * bool(values)

    def _check_variants(self) -> None:
        """Further configs are read as Triton would: a wrong one would be found out when somebody asks for it."""
        from tritonforge.repository.pbtxt import parse

        beside = self.nodes.folder_files
        for path, source in {} if beside is None else self.graph.nodes[beside].sources.items():
            if Path(path).parent == Path(CONFIGS) and path.endswith(".pbtxt"):
                assert beside is not None
                parse(read_given(self.blob(beside, path), source.path), source.path)

    def _doubts(self, message: Any) -> list[str]:
        if message.name in ("", self.folder):
            return []
        return [
            f'{self.name}: its config.pbtxt says `name: "{message.name}"`, and Triton refuses that of a folder called '
            f"{self.folder}; `config: {{name: {self.folder}}}` sets it right"
        ]


def given_versions(
    asked: GivenModel, artifact: Callable[[str], Artifact], number: Callable[[ModelSpec, str], int]
) -> dict[int, Artifact]:
    """The artifacts of all versions by number. ``artifact`` is that of a node; ``number`` asks the lock.

    Raises:
        SpecError: a folder's number stands for other files.
    """
    versions = {}
    for line in asked.nodes.served:
        found = artifact(line.artifact)
        wanted = asked.model
        if line.label:
            wanted = wanted.model_copy(update={"version": int(line.label)})
        try:
            versions[number(wanted, found.digest)] = found
        except SpecError as error:
            if line.label:
                error.place = asked.place("source")
                error.hint = "put what is new into a folder with the next number: numbers are never used again"
            raise
    return versions


def given_files(folder: str, versions: Mapping[int, Artifact], beside: Artifact | None) -> dict[str, Stored]:
    """The files of a release by path, all versions with them, but for the config."""
    files = {
        f"models/{folder}/{number}/{path}": Stored(artifact, path)
        for number, artifact in versions.items()
        for path in artifact.files
    }
    files.update({f"models/{folder}/{path}": Stored(beside, path) for path in beside.files} if beside else {})
    return files


def missing_steps(parts: Mapping[tuple[str, int], Composed]) -> list[str]:
    """What ensembles that were given as they are run, and a release does not serve; ``parts`` by folder and version."""
    folders = {folder for folder, _ in parts}
    found = []
    for part in parts.values():
        if part.format in PASSTHROUGH and part.kind == "ensemble":
            for step, version in steps_of(part.config.message):
                if step not in folders or (version > 0 and (step, version) not in parts):
                    missing = step if step not in folders else f"{step}, version {version},"
                    found.append(f"{part.name}: its step {missing} is not served by this release")
    return found


def _tensor(name: str, declared: TensorDecl, batching: bool) -> dict[str, Any]:
    datatype, dims = parse_type(declared.type)
    values = tensor_values(Tensor(name, datatype, ("batch", *dims) if batching else dims), batching)
    if declared.optional:
        values["optional"] = True
    if declared.ragged and batching:
        values["allow_ragged_batch"] = True
    return values
