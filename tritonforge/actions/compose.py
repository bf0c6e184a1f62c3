"""From artifacts to a release: version numbers, configs, ensembles, routers, golden cases, and its document."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge import __version__
from tritonforge.actions.document import Composed, release_document, steps_behind
from tritonforge.actions.named_files import check_named_files
from tritonforge.actions.served_cases import renamed_cases
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.digest import digest_bytes, digest_file, digest_of
from tritonforge.artifact.generate import make_inputs
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import CASES, Case, CaseSet, write_cases
from tritonforge.build.graph import Graph, Line, ModelNodes
from tritonforge.build.planning import wanted_on
from tritonforge.build.scheduler import NodeResult
from tritonforge.errors import InternalError, SpecError, did_you_mean
from tritonforge.repository.backend_values import backend_values
from tritonforge.repository.config import ENSEMBLE, ConfigRequest, GeneratedConfig, Layer, generate
from tritonforge.repository.derive import served_signature
from tritonforge.repository.ensemble import Member, order, wire
from tritonforge.repository.evidence import EvidenceFolder
from tritonforge.repository.release import Content, ReleaseDraft, Stored
from tritonforge.repository.router import Arm, render_router
from tritonforge.repository.sequence_values import require_batch, sequence_values
from tritonforge.repository.serving import Serving
from tritonforge.repository.template import house_templates
from tritonforge.sources import case_files
from tritonforge.spec.lock import Lock
from tritonforge.spec.models import EnsembleSpec, GoldenSpec, ModelSpec, RouterSpec
from tritonforge.spec.platform import Platform
from tritonforge.steps.export.packed_environment import ENVIRONMENT, PARAMETER
from tritonforge.steps.verify.golden import plan_cases

CONFIG = "config.pbtxt"
FIRST_ARM = "--c1"


def folder_name(name: str, member: ModelSpec | EnsembleSpec) -> str:
    """The folder of a model: its own name, unless it says another or stands behind a router."""
    if member.folder is not None:
        return member.folder
    return f"{name}{FIRST_ARM}" if member.router else name


def compose_inputs(
    workspace: Workspace, platform: Platform, lock: Lock, graph: Graph, results: Mapping[str, NodeResult]
) -> dict[str, Any]:
    """Everything that :meth:`Composer.compose` depends on, as data: where it is unchanged, so is the release."""
    spec = workspace.loaded.spec
    case_digests: dict[str, str] = {}
    for name, member in spec.servables().items():
        for file in _case_paths(workspace, name, member.golden):
            case_digests[f"{name}:{file}"] = digest_file(file)
    return {
        "tritonforge": __version__,
        "spec": spec.model_dump(mode="json"),
        "platform": platform.to_json(),
        "versions": numbers(lock, platform),
        "artifacts": {node_id: result.artifact for node_id, result in results.items()},
        "templates": _template_digests(workspace),
        "cases": case_digests,
        "models": {
            name: [[line.label, line.artifact, line.backend] for line in nodes.served]
            for name, nodes in graph.models.items()
        },
    }


def numbers(lock: Lock, platform: Platform) -> dict[str, dict[str, str]]:
    """The version numbers of a platform, as data."""
    return {
        folder: {str(number): digest for number, digest in known.items()}
        for folder, known in lock.versions.get(platform.name, {}).items()
    }


def _template_digests(workspace: Workspace) -> dict[str, str]:
    """All templates that a config or a router may be made from: the house's, the declared folders', the spec's own."""
    folder = workspace.loaded.folder.resolve()
    roots = [house_templates() / kind for kind in ("config", "routers")]
    roots += [(folder / path).resolve() for path in workspace.loaded.spec.templates]
    digests: dict[str, str] = {}
    for root in [*roots, folder]:
        for base, folders, names in os.walk(root):
            folders[:] = [name for name in folders if not name.startswith((".", "build", "__pycache__"))]
            for name in names:
                if name.endswith(".j2"):
                    file = Path(base) / name
                    digests[str(file)] = digest_bytes(file.read_bytes())
    return digests


def _case_paths(workspace: Workspace, name: str, golden: GoldenSpec) -> list[Path]:
    if not golden.cases:
        return []
    kind = "models" if name in workspace.loaded.spec.models else "ensembles"
    root = workspace.loaded.folder
    files = case_files.find(root, golden.cases, workspace.loaded.place(kind, name, "golden", "cases"))
    return [*files, *case_files.referenced(case_files.read(files, root), root)]


class Composer:
    """Composes the release of one platform. ``composing`` names what it works on, for error messages."""

    def __init__(
        self, workspace: Workspace, platform: Platform, lock: Lock, graph: Graph, results: Mapping[str, NodeResult]
    ) -> None:
        self.workspace = workspace
        self.loaded = workspace.loaded
        self.spec = workspace.loaded.spec
        self.platform = platform
        self.lock = lock
        self.graph = graph
        self.results = results
        self.composing: str | None = None
        self.warnings: list[str] = []
        self.parts: dict[tuple[str, int], Composed] = {}
        self.labels: dict[str, dict[str, int]] = {}
        self.members: dict[str, Member] = {}
        self.files: dict[str, Content] = {}
        self.folders: list[str] = []

    def compose(self) -> ReleaseDraft:
        """The release, in memory; new version numbers are noted in the lock.

        Raises:
            SpecError: a config, a wire, a name or a version number is wrong; nothing was written.
        """
        for name, nodes in self.graph.models.items():
            self.composing = name
            self._model(name, self.spec.models[name], nodes)
        self.lock.pins[self.platform.name] = {}
        wanted = {name: member for name, member in self.spec.ensembles.items() if wanted_on(member.only, self.platform)}
        for name in order(wanted, lambda member, path: self.loaded.place("ensembles", member, *path)):
            self.composing = name
            self._ensemble(name, wanted[name])
        self.composing = None
        made_from = steps_behind(self.graph, self.results)
        document = release_document(self.spec, self.platform, self.parts.values(), self.files, made_from)
        return ReleaseDraft(document, self.files, tuple(self.folders))

    def configs(self) -> dict[str, GeneratedConfig]:
        """The generated configs by folder, once composed."""
        return {part.folder: part.config for part in self.parts.values()}  # versions of one folder share theirs

    def _artifact(self, node_id: str) -> Artifact:
        digest = self.results[node_id].artifact
        artifact = None if digest is None else self.workspace.store.artifact(digest)
        if artifact is None:
            raise InternalError(f"the artefact of {node_id} vanished from the store", hint="run the build again")
        return artifact

    def _layers(self, kind: str, name: str, member: ModelSpec | EnsembleSpec) -> tuple[Layer, ...]:
        place = self.loaded.place
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

    def _request(
        self, kind: str, name: str, member: ModelSpec | EnsembleSpec, backend: str, signature: Signature, **more: Any
    ) -> ConfigRequest:
        override = member.platforms.get(self.platform.name)
        largest = member.max_batch_size
        if override is not None and override.max_batch_size is not None:
            largest = override.max_batch_size
        template = (override.template if override is not None else None) or member.template or "default"
        at = {key: self.loaded.place(kind, name, key) for key in ("template", "max_batch_size")}
        return ConfigRequest(
            name=folder_name(name, member),
            backend=backend,
            signature=signature,
            platform=self.platform,
            max_batch_size=more.pop("max_batch_size", largest),
            template=template,
            layers=more.pop("layers", self._layers(kind, name, member)),
            template_folders=self._template_folders(),
            places=at,
            **more,
        )

    def _template_folders(self) -> tuple[Path, ...]:
        folder = self.loaded.folder.resolve()
        return (*((folder / path).resolve() for path in self.spec.templates), folder)

    def _model(self, name: str, model: ModelSpec, nodes: ModelNodes) -> None:
        """One folder: a version for every served line, oldest first, under one config."""
        if nodes.chosen_by == "order" and len(nodes.lines) > 1:
            self.warnings.append(
                f"{name}: '{nodes.served[0].label}' stands first among {len(nodes.lines)} variants, and was not "
                f"measured: `tritonforge choose {name}` does"
            )
        numbers = [self._number("models", name, model, self._artifact(line.artifact).digest) for line in nodes.served]
        policy = self._all_versions(name, numbers) if len(numbers) > 1 else ()
        parts = [
            self._line(name, model, nodes, line, number, policy)
            for line, number in zip(nodes.served, numbers, strict=True)
        ]
        if len({part.config.text for part in parts}) > 1:
            raise SpecError(
                f"the versions of '{name}' would need different configs",
                place=self.loaded.place("models", name, "versions"),
                expected="one signature, file name and batch size for all of them: Triton has one config for a model",
                hint="make models of their own of those that differ",
            )
        if nodes.golden is not None:
            golden = self._artifact(nodes.golden)
            for path in golden.files:
                self.files[f"golden/{name}/generated/{path}"] = Stored(golden, path)
            names = self._artifact(nodes.served[-1].artifact).metadata.get("names")
            if names:
                stored = self.workspace.store.blob(golden.files[CASES].sha256)
                self.files[f"golden/{name}/generated/{CASES}"] = renamed_cases(stored.read_bytes(), names)
        *older, newest = parts
        for part in older:
            self._take("models", name, part)
        self._add("models", name, model, newest)
        self.labels[name] = {part.label: part.version for part in parts if part.label and model.versions}

    def _all_versions(self, name: str, numbers: list[int]) -> tuple[Layer, ...]:
        """Triton loads the newest version alone unless it is told otherwise."""
        values = {"version_policy": {"specific": {"versions": sorted(numbers)}}}
        return (Layer("`versions` in the spec", values, lambda path: self.loaded.place("models", name, "versions")),)

    def _line(
        self, name: str, model: ModelSpec, nodes: ModelNodes, line: Line, number: int, policy: tuple[Layer, ...]
    ) -> Composed:
        artifact = self._artifact(line.artifact)
        assert artifact.signature is not None
        request = self._request(
            "models",
            name,
            model,
            line.backend,
            artifact.signature,
            layers=(
                *policy,
                *self._settings(name, line, artifact),
                *self._sequence(name, model, artifact),
                *self._environment(name, model),
                *self._layers("models", name, model),
                *self._own(name, line),
            ),
            model_filename=artifact.metadata.get("file"),
            **({} if line.conversion.max_batch_size is None else {"max_batch_size": line.conversion.max_batch_size}),
        )
        config = generate(request)
        require_batch(config.message, artifact.metadata, self.loaded.place("models", name))
        folder = folder_name(name, model)
        placed = {}
        for path in artifact.files:
            target = version_path(artifact, path)
            if target is not None:
                placed[f"models/{folder}/{number}/{target}"] = Stored(artifact, path)
        if nodes.folder_files is not None:
            extra = self._artifact(nodes.folder_files)
            placed.update({f"models/{folder}/{path}": Stored(extra, path) for path in extra.files})
        self.files.update(placed)
        present = [path.removeprefix(f"models/{folder}/") for path in placed]
        at = self.loaded.place
        check_named_files(config.message, present, number, lambda field: at("models", name, "config", field))
        signature = served_signature(config.message, artifact.signature)
        return Composed(
            name,
            folder,
            "model",
            line.backend,
            number,
            artifact.digest,
            config,
            signature,
            artifact.format,
            label=line.label,
            tolerance=line.tolerance,
        )

    def _settings(self, name: str, line: Line, artifact: Artifact) -> tuple[Layer, ...]:
        """What the backend's own settings in the spec say in Triton's words, under everything that `config` says."""
        values = backend_values(line.backend, line.conversion, artifact, self._serving(name, line))
        return (Layer(f"`{line.backend}` in the spec", values, lambda path: self.loaded.place("models", name)),) * bool(
            values
        )

    def _serving(self, name: str, line: Line) -> Serving:
        """What the settings of a backend depend on besides the artefact."""
        model = self.spec.models[name]
        override = model.platforms.get(self.platform.name)
        largest = model.max_batch_size
        if override is not None and override.max_batch_size is not None:
            largest = override.max_batch_size
        if line.conversion.max_batch_size is not None:
            largest = line.conversion.max_batch_size
        place = self.loaded.place
        return Serving(self.platform, largest, model.golden.axes, lambda *path: place("models", name, *path))

    def _sequence(self, name: str, model: ModelSpec, artifact: Artifact) -> tuple[Layer, ...]:
        """Sequence batching with the states that the artefact has."""
        if model.sequence is None:
            return ()
        values = sequence_values(model.sequence, artifact.metadata)
        return (Layer("`sequence` in the spec", values, lambda path: self.loaded.place("models", name, "sequence")),)

    def _environment(self, name: str, model: ModelSpec) -> tuple[Layer, ...]:
        """Where the Python backend finds the packed environment."""
        if model.environment is None:
            return ()
        values = {"parameters": {PARAMETER: {"string_value": f"$$TRITON_MODEL_DIRECTORY/{ENVIRONMENT}"}}}
        place = self.loaded.place("models", name, "environment")
        return (Layer("`environment` in the spec", values, lambda path: place),)

    def _own(self, name: str, line: Line) -> tuple[Layer, ...]:
        """The config that one variant has alone."""
        if not line.conversion.config:
            return ()
        at = ("models", name, "variants", line.label, "config")
        return (Layer(f"the variant {line.label}", line.conversion.config, lambda path: self.loaded.place(*at, *path)),)

    def _ensemble(self, name: str, ensemble: EnsembleSpec) -> None:
        override = ensemble.platforms.get(self.platform.name)
        if override is not None and override.max_batch_size is not None:
            ensemble = ensemble.model_copy(update={"max_batch_size": override.max_batch_size})
        wired = wire(
            name,
            self._with_numbers(name, ensemble),
            self.members,
            lambda path: self.loaded.place("ensembles", name, *path),
        )
        self.warnings += [f"{name}: {text}" for text in wired.warnings]
        layer = wired.layer()
        self.lock.pins[self.platform.name][name] = {step.member: step.version for step in wired.steps}
        layers = (layer, *self._layers("ensembles", name, ensemble))
        request = self._request(
            "ensembles",
            name,
            ensemble,
            ENSEMBLE,
            wired.signature,
            max_batch_size=wired.max_batch_size,
            layers=layers,
            reshape_scalars=False,
        )
        config = generate(request)
        # What an ensemble computes is its wiring: with another one it is another version.
        wiring = {"steps": layer.values, "signature": wired.signature.to_json(), "max_batch_size": wired.max_batch_size}
        digest = digest_of(wiring)
        number = self._number("ensembles", name, ensemble, digest)
        folder = folder_name(name, ensemble)
        self.folders.append(f"models/{folder}/{number}")
        self._add(
            "ensembles",
            name,
            ensemble,
            Composed(name, folder, "ensemble", ENSEMBLE, number, digest, config, wired.signature, "ensemble"),
        )

    def _with_numbers(self, name: str, ensemble: EnsembleSpec) -> EnsembleSpec:
        """The ensemble with numbers instead of the names of its members' versions.

        Raises:
            SpecError: a member has no version of that name, or has several and the step names none.
        """
        steps = []
        for index, step in enumerate(ensemble.steps):
            labels = self.labels.get(step.model, {})
            place = self.loaded.place("ensembles", name, "steps", index, "version")
            if isinstance(step.version, str) and step.version != "latest":
                if step.version not in labels:
                    raise SpecError(
                        f"'{step.model}' has no version called '{step.version}'",
                        place=place,
                        hint=did_you_mean(step.version, [*labels, "latest"]),
                    )
                step = step.model_copy(update={"version": labels[step.version]})
            elif step.version is None and len(labels) > 1:
                raise SpecError(
                    f"'{step.model}' has several versions in this release, and the step does not say which it runs",
                    place=place,
                    expected=" or ".join(f"`version: {label}`" for label in labels),
                )
            steps.append(step)
        return ensemble.model_copy(update={"steps": steps})

    def _add(self, kind: str, name: str, member: ModelSpec | EnsembleSpec, part: Composed) -> None:
        """Note a finished folder, its case files, and the router that may stand in front of it."""
        self._take(kind, name, part)
        front = part
        if member.router:
            front = self._router(kind, name, member.router, part)
            self._take(kind, name, front)
        self.members[name] = Member(
            public_name=name,
            folder=front.folder,
            version=front.version,
            signature=front.signature,
            max_batch_size=front.max_batch_size,
            decoupled=front.decoupled,
        )
        self._cases(kind, name, member.golden, front.signature)
        proven = kind == "models" and self.graph.models[name].golden is not None
        if not proven and (member.golden.ranges or member.golden.axes):
            self._inputs(name, member.golden, front)

    def _take(self, kind: str, name: str, part: Composed) -> None:
        others = {known.name for known in self.parts.values() if known.folder == part.folder} - {name}
        if others or (part.folder, part.version) in self.parts:
            raise SpecError(
                f"two models want the folder '{part.folder}'"
                if others
                else f"two versions of '{name}' are one and the same artefact",
                place=self.loaded.place(kind, name),
                found=f"{', '.join(sorted(others))} and {name}" if others else part.artifact[:12],
                hint="give one of them another `folder:`" if others else "drop one of the `versions`",
            )
        self.parts[part.folder, part.version] = part
        self.files[f"models/{part.folder}/{CONFIG}"] = part.config.text.encode()

    def _router(self, kind: str, name: str, router: bool | RouterSpec, arm: Composed) -> Composed:
        template = router.template if isinstance(router, RouterSpec) else "bls"
        made = render_router(
            name,
            [Arm(arm.folder, arm.version)],
            arm.signature,
            arm.max_batch_size,
            self.platform,
            template=template,
            template_folders=self._template_folders(),
            decoupled=arm.decoupled,
            place=self.loaded.place(kind, name, "router"),
        )
        config = generate(made.request)
        digest = digest_of({path: digest_bytes(data) for path, data in made.files.items()})
        number = self.lock.number_for(self.platform.name, name, digest)
        for path, data in made.files.items():
            self.files[f"models/{name}/{number}/{path}"] = data
        return Composed(name, name, "router", "python", number, digest, config, arm.signature, "python")

    def _number(self, kind: str, name: str, member: ModelSpec | EnsembleSpec, digest: str) -> int:
        try:
            return self.lock.number_for(self.platform.name, folder_name(name, member), digest, wanted=member.version)
        except SpecError as error:
            error.place = self.loaded.place(kind, name, "version")
            raise

    def _cases(self, kind: str, name: str, golden: GoldenSpec, signature: Signature) -> None:
        if not golden.cases:
            return
        root = self.loaded.folder
        files = case_files.find(root, golden.cases, self.loaded.place(kind, name, "golden", "cases"))
        tolerance = None if golden.tolerance is None else golden.tolerance.model_dump(exclude_none=True)
        cases = case_files.pack(case_files.read(files, root), signature, root, tolerance)
        for path, data in _case_bytes(cases).items():
            self.files[f"golden/{name}/files/{path}"] = data

    def _inputs(self, name: str, golden: GoldenSpec, part: Composed) -> None:
        """Generated inputs without answers, for what no reference runs offline: they show that it answers at all."""
        bounds = {axis: (sizes[0], sizes[1]) for axis, sizes in golden.axes.items()}
        ranges = {key: value.model_dump(exclude_none=True) for key, value in golden.ranges.items()}
        largest = part.max_batch_size
        config = {"axes": bounds, "batches": sorted({1, min(3, largest), largest} - {0})}
        cases = tuple(
            Case(label, make_inputs(part.signature, batch=batch, sizes=sizes, seed=golden.seed, ranges=ranges), {})
            for label, batch, sizes in plan_cases(part.signature, config)
        )
        datatypes = {tensor.name: tensor.datatype for tensor in (*part.signature.inputs, *part.signature.outputs)}
        for path, data in _case_bytes(CaseSet("none", cases, datatypes, None)).items():
            self.files[f"golden/{name}/inputs/{path}"] = data

    def keep_parity(self, evidence: EvidenceFolder) -> None:
        """Append the comparison of each converted artefact to the evidence, unless the latest one is the same.

        Variants that are not served have theirs, too.
        """
        import json

        for name, nodes in self.graph.models.items():
            for line in nodes.lines:
                if line.parity is None or self.results[line.parity].artifact is None:
                    continue
                artifact = self._artifact(line.parity)
                key = evidence_key(self._artifact(line.artifact).digest, None, self.platform.name)
                entry = artifact.files["parity.json"]
                report = json.loads(self.workspace.store.blob(entry.sha256).read_text(encoding="utf-8"))
                known = evidence.latest("parity", name, key)
                if known is None or known["report"] != report:
                    evidence.append("parity", name, key, True, {"report": report, "variant": line.label or None})


def evidence_key(artifact: str, config: str | None, platform: str) -> dict[str, str]:
    """What evidence is about; parity does not depend on the config."""
    return {"artifact": artifact, "platform": platform, **({} if config is None else {"config": config})}


def version_path(artifact: Artifact, path: str) -> str | None:
    """Where a file of an artifact stands in its version folder; None for what is not served.

    Triton documents ONNX with external data as a folder called model.onnx that holds both.
    """
    if path in artifact.metadata.get("not_served", ()):
        return None
    external = artifact.metadata.get("external") or []
    if artifact.format == "onnx" and external and (path == "model.onnx" or path in external):
        return f"model.onnx/{path}"
    return path


def _case_bytes(cases: CaseSet) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="tritonforge-") as name:
        folder = Path(name)
        write_cases(folder, cases)
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
