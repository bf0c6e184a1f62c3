"""The layers of one config: what the spec says of a model, from its backend's settings to its variant's own words."""

from __future__ import annotations

from tritonforge.artifact.artifact import Artifact
from tritonforge.build.graph import Line
from tritonforge.repository.backend_values import backend_values
from tritonforge.repository.request import Layer
from tritonforge.repository.sequence_values import sequence_values
from tritonforge.repository.serving import Serving
from tritonforge.spec.load import LoadedSpec
from tritonforge.spec.models import EnsembleSpec, ModelSpec
from tritonforge.spec.platform import Platform
from tritonforge.steps.export.packed_environment import ENVIRONMENT, PARAMETER


class ConfigLayers:
    """Layers of the members of one spec on one platform; each knows where its values were written."""

    def __init__(self, loaded: LoadedSpec, platform: Platform) -> None:
        self.spec = loaded.spec
        self.place = loaded.place
        self.platform = platform

    def of_line(
        self, name: str, model: ModelSpec, line: Line, artifact: Artifact, numbers: list[int]
    ) -> tuple[Layer, ...]:
        """All layers of a served line, the later ones over the earlier; ``numbers`` are the folder's versions."""
        return (
            *(self.versions(name, numbers) if len(numbers) > 1 else ()),
            *self.settings(name, line, artifact),
            *self.sequence(name, model, artifact),
            *self.environment(name, model),
            *self.member("models", name, model),
            *self.variant(name, line),
        )

    def member(self, kind: str, name: str, member: ModelSpec | EnsembleSpec) -> tuple[Layer, ...]:
        place = self.place
        override = member.platforms.get(self.platform.name)
        layers = [Layer("the model in the spec", member.config, lambda path: place(kind, name, "config", *path))]
        base = self.spec.platforms[self.platform.name].config
        if base and kind == "models":
            at = ("platforms", self.platform.name, "config")
            layers.insert(0, Layer(f"platform {self.platform.name}", base, lambda path: place(*at, *path)))
        if override is not None and override.config:
            own = (kind, name, "platforms", self.platform.name, "config")
            layers.append(
                Layer(f"the model on platform {self.platform.name}", override.config, lambda path: place(*own, *path))
            )
        return tuple(layers)

    def versions(self, name: str, numbers: list[int]) -> tuple[Layer, ...]:
        """Triton loads the newest version alone unless it is told otherwise."""
        values = {"version_policy": {"specific": {"versions": sorted(numbers)}}}
        return (Layer("`versions` in the spec", values, lambda path: self.place("models", name, "versions")),)

    def settings(self, name: str, line: Line, artifact: Artifact) -> tuple[Layer, ...]:
        """What the backend's own settings in the spec say in Triton's words, under everything that `config` says."""
        values = backend_values(line.backend, line.conversion, artifact, self._serving(name, line))
        return (Layer(f"`{line.backend}` in the spec", values, lambda path: self.place("models", name)),) * bool(values)

    def _serving(self, name: str, line: Line) -> Serving:
        """What the settings of a backend depend on besides the artefact."""
        model = self.spec.models[name]
        override = model.platforms.get(self.platform.name)
        largest = model.max_batch_size
        if override is not None and override.max_batch_size is not None:
            largest = override.max_batch_size
        if line.conversion.max_batch_size is not None:
            largest = line.conversion.max_batch_size
        place = self.place
        return Serving(self.platform, largest, model.golden.axes, lambda *path: place("models", name, *path))

    def sequence(self, name: str, model: ModelSpec, artifact: Artifact) -> tuple[Layer, ...]:
        """Sequence batching with the states that the artefact has."""
        if model.sequence is None:
            return ()
        values = sequence_values(model.sequence, artifact.metadata)
        return (Layer("`sequence` in the spec", values, lambda path: self.place("models", name, "sequence")),)

    def environment(self, name: str, model: ModelSpec) -> tuple[Layer, ...]:
        """Where the Python backend finds the packed environment."""
        if model.environment is None:
            return ()
        values = {"parameters": {PARAMETER: {"string_value": f"$$TRITON_MODEL_DIRECTORY/{ENVIRONMENT}"}}}
        place = self.place("models", name, "environment")
        return (Layer("`environment` in the spec", values, lambda path: place),)

    def variant(self, name: str, line: Line) -> tuple[Layer, ...]:
        """The config that one variant has alone."""
        if not line.conversion.config:
            return ()
        at = ("models", name, "variants", line.label, "config")
        return (Layer(f"the variant {line.label}", line.conversion.config, lambda path: self.place(*at, *path)),)
