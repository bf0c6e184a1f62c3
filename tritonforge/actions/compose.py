"""From artifacts to a release: version numbers, configs, ensembles, routers, golden cases, and its document."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tritonforge.actions.config_layers import ConfigLayers
from tritonforge.actions.document import Composed, release_document, steps_behind
from tritonforge.actions.given import GivenModel, given_files, given_versions, missing_steps
from tritonforge.actions.golden_files import stated_cases, unanswered_inputs
from tritonforge.actions.named_files import check_named_files
from tritonforge.actions.served_cases import renamed_cases
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.digest import digest_bytes, digest_of
from tritonforge.artifact.signature import Signature
from tritonforge.artifact.tensors import CASES
from tritonforge.build.graph import Graph, Line, ModelNodes
from tritonforge.build.planning import wanted_on
from tritonforge.build.scheduler import NodeResult
from tritonforge.durable import each_at_once
from tritonforge.errors import InternalError, SpecError, did_you_mean
from tritonforge.repository.config import ENSEMBLE, ConfigRequest, GeneratedConfig, generate
from tritonforge.repository.derive import served_signature
from tritonforge.repository.ensemble import Member, order, wire
from tritonforge.repository.evidence import EvidenceFolder
from tritonforge.repository.given import steps_of
from tritonforge.repository.release import Content, ReleaseDraft, Stored
from tritonforge.repository.router import Arm, render_router
from tritonforge.repository.sequence_values import require_batch
from tritonforge.spec.lock import Lock
from tritonforge.spec.models import PASSTHROUGH, EnsembleSpec, ModelSpec, RouterSpec
from tritonforge.spec.platform import Platform

CONFIG = "config.pbtxt"
FIRST_ARM = "--c1"


def folder_name(name: str, member: ModelSpec | EnsembleSpec) -> str:
    """The folder of a model: its own name, unless it says another or stands behind a router."""
    if member.folder is not None:
        return member.folder
    return f"{name}{FIRST_ARM}" if member.router else name


class Composer:
    """Composes the release of one platform. ``composing`` names what it works on, for error messages."""

    def __init__(
        self, workspace: Workspace, platform: Platform, lock: Lock, graph: Graph, results: Mapping[str, NodeResult]
    ) -> None:
        self.workspace = workspace
        self.loaded = workspace.loaded
        self.spec = workspace.loaded.spec
        self.platform = platform
        self.layers = ConfigLayers(workspace.loaded, platform)
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
        self.lock.pins[self.platform.name] = {}
        for name, nodes in self.graph.models.items():
            self.composing = name
            make = self._given if nodes.kind in PASSTHROUGH else self._model
            make(name, self.spec.models[name], nodes)
        wanted = {name: member for name, member in self.spec.ensembles.items() if wanted_on(member.only, self.platform)}
        for name in order(wanted, lambda member, path: self.loaded.place("ensembles", member, *path)):
            self.composing = name
            self._ensemble(name, wanted[name])
        self.composing = None
        self.warnings += missing_steps(self.parts)
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
            layers=more.pop("layers", self.layers.member(kind, name, member)),
            template_folders=self._template_folders(),
            places=at,
            **more,
        )

    def _template_folders(self) -> tuple[Path, ...]:
        folder = self.loaded.folder.resolve()
        return (*((folder / path).resolve() for path in self.spec.templates), folder)

    def _model(self, name: str, model: ModelSpec, nodes: ModelNodes) -> None:
        """One folder: a version for every served line, oldest first, under one config."""
        self.warnings += self._about_choice(name, nodes)
        numbers = [self._number("models", name, model, self._artifact(line.artifact).digest) for line in nodes.served]
        if numbers != sorted(numbers):
            raise SpecError(
                f"the versions of '{name}' stand in another order than their numbers",
                place=self.loaded.place("models", name, "versions"),
                expected="oldest first: Triton serves the highest number where a request names none",
                found=", ".join(f"{line.label} is {n}" for line, n in zip(nodes.served, numbers, strict=True)),
            )
        parts = [
            self._line(name, model, nodes, line, number, numbers)
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

    def _given(self, name: str, model: ModelSpec, nodes: ModelNodes) -> None:
        """A model that is served as it is: every version under its number, those that Triton loads as entries."""

        def number(asked: ModelSpec, digest: str) -> int:
            return self._number("models", name, asked, digest)

        folder = folder_name(name, model)
        asked = GivenModel(name, folder, model, nodes, self.graph, self.platform, self.layers, self._bytes)
        versions = given_versions(asked, self._artifact, number)
        beside = None if nodes.folder_files is None else self._artifact(nodes.folder_files)
        given = asked.given(versions, beside)
        self.files.update(given_files(folder, versions, beside))
        self.folders += [f"models/{folder}/{version}" for version, artifact in versions.items() if not artifact.files]
        self.warnings += given.warnings
        *older, newest = given.parts
        for part in older:
            self._take("models", name, part)
        self._add("models", name, model, newest)
        steps = dict(steps_of(newest.config.message))
        if steps:
            self.lock.pins[self.platform.name][name] = steps

    def _bytes(self, node: str, path: str) -> bytes:
        """The bytes of a file that a node made."""
        return self.workspace.store.blob(self._artifact(node).files[path].sha256).read_bytes()

    def _about_choice(self, name: str, nodes: ModelNodes) -> list[str]:
        """What a reader should know of how the served variant was chosen."""
        label = nodes.served[0].label
        measure = f"`tritonforge choose {name}` measures"
        choice = self.lock.choices.get(self.platform.name, {}).get(name)
        if nodes.chosen_by == "gone" and choice is not None:
            return [f"{name}: forge.lock chose '{choice.variant}', which is gone; '{label}' is served: {measure}"]
        if nodes.chosen_by == "order" and len(nodes.lines) > 1:
            return [
                f"{name}: '{label}' stands first among {len(nodes.lines)} variants, and was not measured: "
                f"`tritonforge choose {name}` does"
            ]
        if nodes.chosen_by == "lock" and choice is not None:
            measured = choice.figures.get("artifact")
            if measured and not self._artifact(nodes.served[0].artifact).digest.startswith(str(measured)):
                return [f"{name}: '{label}' was chosen as another artefact than it is now: {measure} again"]
        return []

    def _line(
        self, name: str, model: ModelSpec, nodes: ModelNodes, line: Line, number: int, numbers: list[int]
    ) -> Composed:
        artifact = self._artifact(line.artifact)
        assert artifact.signature is not None
        request = self._request(
            "models",
            name,
            model,
            line.backend,
            artifact.signature,
            layers=self.layers.of_line(name, model, line, artifact, numbers),
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

    def _ensemble(self, name: str, ensemble: EnsembleSpec) -> None:
        override = ensemble.platforms.get(self.platform.name)
        if override is not None and override.max_batch_size is not None:
            ensemble = ensemble.model_copy(update={"max_batch_size": override.max_batch_size})
        for index, step in enumerate(ensemble.steps):
            member = self.members.get(step.model)
            if member is not None and not member.signature.inputs:
                raise SpecError(
                    f"the config of '{step.model}' leaves its inputs and outputs to the server, so nothing can be "
                    "wired to it",
                    place=self.loaded.place("ensembles", name, "steps", index, "model"),
                    hint="say them with `inputs:` and `outputs:` of the model, or in its config.pbtxt",
                )
        wired = wire(
            name,
            self._with_numbers(name, ensemble),
            self.members,
            lambda path: self.loaded.place("ensembles", name, *path),
        )
        self.warnings += [f"{name}: {text}" for text in wired.warnings]
        layer = wired.layer()
        self.lock.pins[self.platform.name][name] = {step.member: step.version for step in wired.steps}
        layers = (layer, *self.layers.member("ensembles", name, ensemble))
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
        place = self.loaded.place(kind, name, "golden", "cases")
        if member.golden.cases:
            stated = stated_cases(member.golden, front.signature, self.loaded.folder, place)
            self.files.update({f"golden/{name}/files/{path}": data for path, data in stated.items()})
        proven = kind == "models" and self.graph.models[name].golden is not None
        known = bool(front.signature.inputs)
        if not known and (member.golden.cases or member.golden.ranges or member.golden.axes):
            raise SpecError(
                f"golden cases are for inputs and outputs, which the config of '{name}' leaves to the server",
                place=self.loaded.place(kind, name, "golden"),
                hint="say them under `config:`, as `input: [{name: …, data_type: …, dims: […]}]` and `output:`",
            )
        if not proven and (member.golden.ranges or member.golden.axes):
            asked = unanswered_inputs(member.golden, front.signature, front.max_batch_size)
            self.files.update({f"golden/{name}/inputs/{path}": data for path, data in asked.items()})

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

    def keep_parity(self, evidence: EvidenceFolder) -> None:
        """Append the comparison of each converted artefact to the evidence, unless the latest one is the same.

        Variants that are not served have theirs, too.
        """
        import json

        def keep(item: tuple[str, Line]) -> None:
            name, line = item
            assert line.parity is not None
            artifact = self._artifact(line.parity)
            key = evidence_key(str(self.results[line.artifact].artifact), None, self.platform.name)
            entry = artifact.files["parity.json"]
            report = json.loads(self.workspace.store.blob(entry.sha256).read_text(encoding="utf-8"))
            known = evidence.latest("parity", name, key)
            if known is None or known["report"] != report:
                evidence.append("parity", name, key, True, {"report": report, "variant": line.label or None})

        each_at_once(
            keep,
            [
                (name, line)
                for name, nodes in self.graph.models.items()
                for line in nodes.lines
                if line.parity is not None and self.results[line.parity].artifact is not None
            ],
        )


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
