"""A Jetson: containers of its own engine over SSH, run as its JetPack asks for, and only what it has room for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tritonforge.rollout.host import SLOTS, Bundle
from tritonforge.rollout.jetson.board import Board, read_board
from tritonforge.rollout.jetson.fit import fits
from tritonforge.rollout.jetson.images import ServingImage, choose
from tritonforge.rollout.journal import read_state
from tritonforge.rollout.ssh import SshHost
from tritonforge.rollout.targets.container_run import ContainerRun
from tritonforge.rollout.targets.containers import Names, find_ours
from tritonforge.rollout.targets.docker import DockerHost
from tritonforge.rollout.targets.embedded import Public
from tritonforge.rollout.targets.engines import Engine

IMAGE_BYTES: Final = 8 << 30
"""What an image that must still be fetched takes unpacked. An estimate; Triton's differ by their backends."""


@dataclass(slots=True)
class BoardRun:
    """How servers run on a board. What ``given`` leaves open follows from the table of JetPacks.

    ``wanted`` is the platform's container release of Triton (None: the table's default); ``image`` is what the spec
    names itself; ``root`` is where the board's files are looked for.
    """

    machine: SshHost
    given: ContainerRun
    image: str | None
    wanted: str | None
    root: str = ""
    _board: Board | None = field(default=None, init=False)
    _chosen: ServingImage | None = field(default=None, init=False)

    @property
    def board(self) -> Board:
        """What it is; asked once.

        Raises:
            CheckFailed: it is no Jetson.
            EnvironmentLacks: it is not reached.
        """
        if self._board is None:
            self._board = read_board(self.machine, root=self.root)
        return self._board

    def __call__(self) -> ContainerRun:
        """How to run them.

        Raises:
            CheckFailed: no image, or not the one that is named, runs there; with what does.
            EnvironmentLacks: the board's engine has not what it needs.
        """
        if self._chosen is None:
            self._chosen = choose(self.board, self.wanted, image=self.image, gpus=self.given.gpus)
        chosen = self._chosen
        return replace(self.given, image=chosen.image, runtime=self.given.runtime or chosen.runtime, gpus=chosen.gpus)


class JetsonHost(DockerHost):
    """A Docker host that knows how much room there is."""

    def __init__(
        self,
        engine: Engine,
        names: Names,
        run: BoardRun,
        public: Public,
        *,
        proxy_image: str | None = None,
        drain: float = 30.0,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(engine, names, run, public, proxy_image=proxy_image, drain=drain, progress=progress)
        self._on = run

    def facts(self) -> Mapping[str, Any]:
        """What the board was like when a rollout began: what is measured on it means nothing without."""
        board = self._on.board
        return {
            "module": board.module,
            "l4t": board.l4t,
            "jetpack": board.jetpack,
            "power_mode": board.power_mode,
            "clocks": board.clocks,
        }

    def require_room(self, bundle: Bundle, *, slots: int) -> None:
        wanted = {str(item["sha256"]): int(item["size"]) for item in bundle.files.values()}
        send = int(self.place.call("missing", {"files": wanted})["bytes"])
        running = [slot for slot in SLOTS if self.status(slot).running]
        board = self._on.board
        if len(running) == len(SLOTS) and board.memory_available is not None:
            # The warm one leaves before the newcomer starts.
            board = replace(board, memory_available=board.memory_available + self._memory_of_the_warm())
        fits(
            board,
            slots=slots,
            model_bytes=sum(wanted.values()),
            changed_bytes=send if running else None,
            send_bytes=send,
            serving=bool(running),
            image_bytes=0 if self._has_image() else IMAGE_BYTES,
        ).require()

    def _memory_of_the_warm(self) -> int:
        """Bytes of the server that does not serve; 0 where the engine does not know."""
        committed = read_state(self.place.call("read")["journal"]).committed
        warm = next(slot for slot in SLOTS if committed is None or slot != committed["active"])
        with self.engine.calls():
            container = find_ours(self.engine.client, self.names, warm)
            used = {} if container is None else container.stats(stream=False).get("memory_stats", {})
        return int(used.get("usage", 0))

    def _has_image(self) -> bool:
        import docker.errors

        with self.engine.calls():
            try:
                self.engine.client.images.get(self._on().image)
            except docker.errors.ImageNotFound:
                return False
        return True
