"""What a Jetson is, what serves there, and what fits."""

from __future__ import annotations

from typing import Any

from tritonforge.actions.doctor import Finding
from tritonforge.actions.workspace import Workspace
from tritonforge.errors import ForgeError
from tritonforge.rollout.jetson.board import Board, read_board
from tritonforge.rollout.jetson.fit import GIB, Verdict, fits
from tritonforge.rollout.jetson.images import ServingImage, choose
from tritonforge.rollout.ssh import SshHost
from tritonforge.rollout.ssh_process import SshOptions
from tritonforge.spec.targets.jetson import JetsonTarget


def ssh_host(workspace: Workspace, spec: JetsonTarget) -> SshHost:
    """The target's machine, not yet connected; the spec's files are relative to its folder."""
    folder = workspace.loaded.folder
    files = (spec.ssh.identity, spec.ssh.config, spec.ssh.known_hosts)
    identity, config, known_hosts = (None if path is None else folder / path for path in files)
    return SshHost(spec.address, SshOptions(identity, config, known_hosts, spec.ssh.connect_timeout_s))


def serving_image(workspace: Workspace, spec: JetsonTarget, board: Board) -> ServingImage:
    """The image and flags for a target's board, by the table and by what the spec says itself.

    Raises:
        CheckFailed: none, or not this one, runs there.
        EnvironmentLacks: the board's engine lacks what it needs.
    """
    platform = workspace.platform(spec.platform)
    wanted = None if platform.embedded else platform.triton
    return choose(board, wanted, image=spec.image, gpus=spec.gpus is not False)


def examine(workspace: Workspace, spec: JetsonTarget) -> tuple[list[Finding], dict[str, Any]]:
    """A board's table; and the board, the image and the room there as data."""
    with ssh_host(workspace, spec) as host:
        try:
            board = read_board(host, root=spec.board_root or "")
        except ForgeError as error:
            return [_lacks("board", error)], {}
    findings = _table(board)
    facts: dict[str, Any] = {"board": board.to_json(), "image": None}
    try:
        image = serving_image(workspace, spec, board)
    except ForgeError as error:
        findings.append(_lacks("image", error))
    else:
        facts["image"] = image.to_json()
        findings.append(Finding("image", "ok", image.image, image.reason))
        if image.flags:
            findings.append(Finding("run flags", "ok", image.flags))
        findings += [Finding("limit", "ok", note) for note in image.notes if note not in board.notes]
    size = _release_bytes(workspace, spec)
    wanted = 2 if spec.strategy == "two-slots" else 1
    verdicts = {slots: fits(board, slots=slots, model_bytes=size or 0) for slots in (2, 1)}
    findings += [_room(verdict, wanted=slots == wanted, known=size is not None) for slots, verdict in verdicts.items()]
    facts["room"] = {"model_bytes": size, "slots": [verdict.to_json() for verdict in verdicts.values()]}
    return findings, facts


def _table(board: Board) -> list[Finding]:
    engine = board.engine
    free, total = board.memory_available, board.memory_total
    unknown = "not installed: the image brings its own"
    return [
        Finding("module", "ok", board.module),
        Finding("Jetson Linux", "ok", f"L4T {board.l4t}, kernel {board.kernel}, {board.architecture}"),
        Finding(
            "JetPack", "ok" if board.jetpack else "warn", board.jetpack or "unknown", "; ".join(board.notes) or None
        ),
        Finding("CUDA", "ok", board.cuda or unknown),
        Finding("TensorRT", "ok", board.tensorrt or unknown),
        Finding(
            "container runtime",
            "ok" if engine.problem is None and "nvidia" in engine.runtimes else "warn",
            engine.problem
            or f"Docker {engine.version}: {', '.join(engine.runtimes)} (default {engine.default_runtime})",
        ),
        Finding(
            "memory",
            "warn" if free is None or total is None else "ok",
            "unknown" if free is None or total is None else f"{free / GIB:.1f} of {total / GIB:.1f} GiB available",
            "unified: the GPU takes from it too",
        ),
        Finding(
            "storage",
            "warn" if board.disk_free is None else "ok",
            "unknown" if board.disk_free is None else f"{board.disk_free / GIB:.1f} GiB free at {engine.root or '/'}",
        ),
        Finding("power mode", "ok" if board.power_mode else "warn", board.power_mode or "unknown (nvpmodel -q)"),
        Finding(
            "clocks",
            "ok" if board.clocks == "fixed" else "warn",
            board.clocks or "unknown",
            None if board.clocks == "fixed" else "measurements vary with them; `sudo jetson_clocks` fixes them",
        ),
    ]


def _room(verdict: Verdict, *, wanted: bool, known: bool) -> Finding:
    name = "two slots" if verdict.slots == 2 else "one slot"
    of = "" if known else " without any model (there is no release yet)"
    if verdict.ok and verdict.memory_available is None:
        return Finding(name, "warn", "not known: the board's memory could not be read")
    if verdict.ok:
        return Finding(name, "ok", f"fits{of}: {verdict.memory_needed / GIB:.1f} GiB of memory, by estimate")
    return Finding(
        name, "lacks" if wanted else "warn", "; ".join(verdict.reasons), "; or ".join(verdict.instead) or None
    )


def _release_bytes(workspace: Workspace, spec: JetsonTarget) -> int | None:
    """The size of the current release's model files."""
    release = workspace.releases(workspace.platform(spec.platform)).current()
    if release is None:
        return None
    return sum(int(content["size"]) for entry in release.models() for content in entry["files"].values())


def _lacks(name: str, error: ForgeError) -> Finding:
    found = "; ".join(filter(None, (error.message, error.found)))
    return Finding(name, "lacks", found, "; or ".join(filter(None, (*error.details, error.hint))) or None)
