"""``convert``: one model to what one backend serves, without a spec, by the same steps as a build."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tritonforge.actions.build import BuildOptions, Observer, run_steps
from tritonforge.actions.conversion_account import account_of, is_account, made_by, served_files
from tritonforge.actions.conversion_spec import Wanted, conversion_spec, explained
from tritonforge.actions.hand_over import check_free, hand_over_file, hand_over_folder
from tritonforge.actions.plan import PlannedStep, planned_steps
from tritonforge.actions.workspace import Workspace
from tritonforge.artifact.artifact import Artifact, inside
from tritonforge.artifact.digest import digest_bytes
from tritonforge.artifact.linking import copy_hashed
from tritonforge.artifact.store import LocalStore, default_home
from tritonforge.build.graph import Graph, Line
from tritonforge.build.planning import plan_graph
from tritonforge.build.record import BuildRecord
from tritonforge.build.scheduler import NodeResult
from tritonforge.durable import disk_errors, folder_lock, write_json
from tritonforge.errors import CheckFailed, ForgeError, UsageError
from tritonforge.interruption import interruptible
from tritonforge.spec.lock import Lock

ACCOUNT: Final = "conversion.json"
"""The account's name in the folder; beside a single file it is that file's name and ``.json``."""

_FILES: Final[Mapping[str, tuple[str, ...]]] = {
    ".onnx": ("onnx", "onnxruntime"),
    ".ort": ("ort",),
    ".pt": ("pytorch", "torchscript"),
    ".pt2": ("aoti",),
}
"""An output of this name is a file, of what is converted to; every other one is a folder."""


@dataclass(frozen=True, slots=True)
class Conversion:
    """What was done, or (in a dry run, where ``account`` is None) would be."""

    output: Path
    steps: tuple[PlannedStep, ...] = ()
    results: Mapping[str, NodeResult] | None = None
    account: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        steps = [
            {"step": item.node.step, "action": item.action, "reasons": list(item.reasons)} for item in self.steps
        ] + [
            {"step": item.node.step, "status": item.status, "seconds": round(item.seconds, 3)}
            for item in (self.results or {}).values()
        ]
        return {
            "output": str(self.output),
            "dry_run": self.account is None,
            "steps": steps,
            **({} if self.account is None else {"account": dict(self.account)}),
        }


def convert(
    wanted: Wanted,
    output: Path | None = None,
    *,
    force: bool = False,
    dry_run: bool = False,
    jobs: int | None = None,
    observer: Observer | None = None,
) -> Conversion:
    """Convert a model, compare the result with its source, and hand it over with its account.

    Raises:
        UsageError: the output is taken, or nothing would be converted.
        ForgeError: a step failed, or the result is further from its source than the tolerance.
        Interrupted: what was finished stays in the store, and the next run goes on from there.
    """
    observer = observer or Observer()
    loaded = conversion_spec(wanted)
    target = _target(wanted, output)
    check_free(target, force=force, mark=ACCOUNT)
    if _is_file(target) and not (is_account(_beside(target)) and not target.exists()):
        # (A run that was killed between the two leaves an account without its model.)
        check_free(_beside(target), force=force, mark="")
    workspace = Workspace(loaded, LocalStore(default_home() / "store"))
    platform, lock = workspace.platform(), Lock()
    with interruptible():
        graph = plan_graph(loaded, platform, workspace.resolver(lock))
        _raise_first(graph.errors.values(), wanted)
        line = _line(graph, wanted)
        if dry_run:
            steps, _, errors = planned_steps(graph, workspace.store, {})
            _raise_first(errors, wanted)
            return Conversion(target, tuple(steps))
        observer.platform(platform, graph)
        name = digest_bytes(f"{wanted.path or wanted.model}\0{wanted.to}".encode())[:16]
        root = default_home() / "conversions" / name
        store = workspace.store.open()
        with (
            folder_lock(root / ".lock", notify=observer.waiting),
            store.in_use(),
            disk_errors("the conversion cannot go on", root),
        ):
            store.sweep_staging()
            results = run_steps(workspace, root / "logs", graph, BuildRecord(), BuildOptions(jobs=jobs), observer)
            _raise_first([item.error for item in results.values() if item.error is not None], wanted)
            artifact = made_by(store, results[line.artifact])
            account = account_of(wanted, graph, line, results, artifact, store, lock)
            _hand_over(target, artifact, account, store, force=force)
            shutil.rmtree(root / "logs", ignore_errors=True)
    return Conversion(target, (), results, account)


def _target(wanted: Wanted, output: Path | None) -> Path:
    """Where the result goes: ``NAME-TO`` beside the model (here, where that has no place) without another wish."""
    model = wanted.path
    if output is None:
        target = (Path.cwd() if model is None else model.parent) / f"{wanted.name}-{wanted.to}"
    else:
        target = output.expanduser().absolute()
        if _is_file(target) and wanted.to not in _FILES[target.suffix]:
            raise UsageError(
                f"a file called {target.name} is no result of a conversion to {wanted.to}",
                hint="name a folder by --output, without a suffix",
            )
    if model is not None and model.exists():
        real, at = model.resolve(), target.resolve()
        if at == real or at in real.parents or (model.is_dir() and real in at.parents):
            raise UsageError(
                "the output would change its own source", found=str(target), hint="name another place by --output"
            )
    return target


def _line(graph: Graph, wanted: Wanted) -> Line:
    (nodes,) = graph.models.values()
    (line,) = nodes.lines
    if line.artifact == nodes.imported and nodes.kind in ("onnx", "python"):
        raise UsageError(
            f"the model is what {wanted.to} takes already: nothing would be converted",
            found=f"{wanted.model}: {nodes.kind}",
            hint=None
            if nodes.kind == "python"
            else "another --to, `--precision int8`, `--set simplify=true` or `--set onnxruntime.optimize=basic` "
            "make something of it",
        )
    return line


def _raise_first(errors: Any, wanted: Wanted) -> None:
    for error in errors:
        assert isinstance(error, ForgeError)
        raise explained(error, wanted.name)


def _hand_over(target: Path, artifact: Artifact, account: Mapping[str, Any], store: LocalStore, *, force: bool) -> None:
    """Copies, whose owner may change them: nothing shares an inode with the store."""
    paths = served_files(artifact)

    def copy(path: str, to: Path) -> None:
        entry = artifact.files[path]
        if copy_hashed(store.blob(entry.sha256), to) != entry.sha256:
            raise CheckFailed(
                "a file of the store is damaged",
                found=path,
                hint="`tritonforge cache verify` removes what is damaged; then run the command again",
            )
        to.chmod(0o644)

    def fill(folder: Path) -> None:
        for path in paths:
            copy(path, inside(folder, path))
        write_json(folder / ACCOUNT, account)

    if not _is_file(target):
        if ACCOUNT in paths:
            raise CheckFailed(f"the model has a file called {ACCOUNT}, which is the account's name")
        hand_over_folder(target, fill, force=force, mark=ACCOUNT)
        return
    if len(paths) != 1:
        raise UsageError(
            "the result is several files",
            found=", ".join(paths[:6]),
            hint="name a folder by --output, without a suffix",
        )
    # The account first: a model that is there has one.
    beside = _beside(target)
    with disk_errors("cannot write the account", beside):
        write_json(beside, account)
    hand_over_file(target, lambda staged: copy(paths[0], staged), force=force)


def _is_file(target: Path) -> bool:
    return target.suffix in _FILES and not target.is_dir()


def _beside(target: Path) -> Path:
    """Where the account of a single file stands."""
    return target.with_name(f"{target.name}.json")
