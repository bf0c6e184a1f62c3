"""Models that are served as they are, on their way into a release: their config, their versions, what Triton loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonforge.actions.config_layers import ConfigLayers
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature, Tensor, parse_type
from tritonforge.build.graph import Graph, ModelNodes
from tritonforge.errors import Place, SpecError
from tritonforge.repository.config import GeneratedConfig
from tritonforge.repository.derive import tensor_values
from tritonforge.repository.given import (
    GivenRequest,
    backend_of,
    given_config,
    read_given,
    served_versions,
    signature_of,
)
from tritonforge.repository.request import Layer
from tritonforge.sources.model_folder import CONFIG, CONFIGS
from tritonforge.spec.models import ModelSpec, TensorDecl
from tritonforge.spec.platform import Platform


@dataclass(frozen=True, slots=True)
class Given:
    """What a release needs to know of such a model. ``served`` are the versions that Triton loads."""

    config: GeneratedConfig
    backend: str
    signature: Signature
    served: tuple[int, ...]
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

    def given(self, versions: Mapping[int, Artifact]) -> Given:
        """The config over the files of all versions, by number.

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
        return Given(config, backend, signature_of(config.message), tuple(served), tuple(self._doubts(config.message)))

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


def _tensor(name: str, declared: TensorDecl, batching: bool) -> dict[str, Any]:
    datatype, dims = parse_type(declared.type)
    values = tensor_values(Tensor(name, datatype, ("batch", *dims) if batching else dims), batching)
    if declared.optional:
        values["optional"] = True
    if declared.ragged and batching:
        values["allow_ragged_batch"] = True
    return values
