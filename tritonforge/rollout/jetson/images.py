"""Which Triton image serves on a board, and how its container is run."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.jetson.board import Board
from tritonforge.rollout.jetson.table import Row, row_of, rows

_VENDOR: Final = re.compile(r"(?:nvcr\.io/)?nvidia/tritonserver:(\d\d\.\d\d)-(\S+?)(?:@sha256:[0-9a-f]{64})?")


@dataclass(frozen=True, slots=True)
class ServingImage:
    """An image and how it is run there: as ``docker run --runtime RUNTIME --gpus all`` with ``gpus``.

    ``reason`` is why this one; ``notes`` are limits to know of; ``sources`` are where the table has it from.
    """

    image: str
    runtime: str | None
    gpus: bool
    reason: str
    notes: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def flags(self) -> str:
        """As options of ``docker run``."""
        words = [f"--runtime {self.runtime}"] if self.runtime else []
        return " ".join([*words, *(["--gpus all"] if self.gpus else [])])

    def arguments(self) -> dict[str, Any]:
        """As arguments of the docker SDK's ``containers.create``."""
        given: dict[str, Any] = {"runtime": self.runtime} if self.runtime else {}
        if self.gpus:
            from docker.types import DeviceRequest

            given["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
        return given

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "flags": self.flags}


def choose(board: Board, wanted: str | None = None, *, image: str | None = None, gpus: bool = True) -> ServingImage:
    """The image for a board: of the container release ``wanted`` (``YY.MM``), else of the table's default.

    ``image`` is one that the user names: it is refused only when it is NVIDIA's own and made for another JetPack.
    Without ``gpus`` it runs on the processor alone, and needs no container runtime of NVIDIA's.

    Raises:
        CheckFailed: no image, or not this one, runs on that JetPack; with the ways that do.
        EnvironmentLacks: the board's engine does not answer, or has no ``nvidia`` runtime.
    """
    row = _row(board)
    if image is not None:
        _check_named(board, row, image, gpus)
        reason = "the target names it"
    else:
        release = _release(board, row, wanted)
        assert row.image is not None
        image = row.image.format(release=release)
        reason = f"{_title(board)}, " + (f"Triton {wanted} of the platform" if wanted else "the table's default")
    runtime = (row.runtime or "nvidia") if gpus else None
    _require_engine(board, runtime)
    return ServingImage(image, runtime, gpus, reason, (*row.limits, *board.notes), row.sources)


def _row(board: Board) -> Row:
    if board.architecture != "aarch64":
        raise CheckFailed(
            f"the board runs {board.architecture or 'an unknown system'}, not 64-bit ARM",
            expected="aarch64",
            found=board.architecture or None,
        )
    row = row_of(board.jetpack_major)
    if row is None:
        known = ", ".join(entry.jetpack for entry in rows())
        raise CheckFailed(
            f"no Triton is known for {_title(board)}",
            expected=f"JetPack {known}",
            found=f"L4T {board.l4t}",
            hint="name an image that serves there (`image`), once this tritonforge knows that JetPack; or upgrade it",
        )
    return row


def _release(board: Board, row: Row, wanted: str | None) -> str:
    if row.image is None:
        raise CheckFailed(
            f"NVIDIA publishes no Triton image for {_title(board)}",
            found=f"{board.module}, L4T {board.l4t}",
            details=row.instead,
            hint="these are the ways that there are; see " + " and ".join(row.sources[:2]),
        )
    release = wanted or row.default
    assert release is not None and row.first is not None
    if _numbers(release) < _numbers(row.first) or (row.last and _numbers(release) > _numbers(row.last)):
        bounds = f"{row.first} to {row.last}" if row.last else f"{row.first} or newer"
        raise CheckFailed(
            f"Triton {release} has no image for {_title(board)}",
            expected=bounds,
            found=release,
            hint=f'set the platform\'s `triton` to one of these (such as "{row.default}"), build and deploy again',
        )
    return release


def _check_named(board: Board, row: Row, image: str, gpus: bool) -> None:
    """Refuse NVIDIA's image for another JetPack. What others made of it is theirs to know."""
    found = _VENDOR.fullmatch(image)
    if found is None or not gpus:
        return
    if row.image is None:
        raise CheckFailed(
            f"{image} does not run on {_title(board)}",
            details=row.instead,
            hint="these are the ways that there are; see " + " and ".join(row.sources[:2]),
        )
    release = found[1]
    fitting = row.image.format(release=release)
    if found[2] != fitting.rpartition(f"{release}-")[2]:
        raise CheckFailed(
            f"{image} does not use the GPU of {_title(board)}",
            expected=row.image.format(release=row.default),
            found=image,
            hint="leave `image` out to have it chosen, or name one that is made for that JetPack",
        )
    _release(board, row, release)


def _require_engine(board: Board, runtime: str | None) -> None:
    engine = board.engine
    if engine.problem is not None:
        raise EnvironmentLacks(
            "the board's Docker engine does not answer",
            found=engine.problem,
            hint="start it (sudo systemctl start docker), and let this user use it (sudo usermod -aG docker USER)",
        )
    if runtime is not None and runtime not in engine.runtimes:
        raise EnvironmentLacks(
            f"the board's Docker engine has no runtime '{runtime}', without which containers see no GPU",
            found="it has " + ", ".join(engine.runtimes),
            hint=(
                "sudo apt-get install nvidia-container && sudo nvidia-ctk runtime configure --runtime=docker && "
                "sudo systemctl restart docker"
            ),
        )


def _title(board: Board) -> str:
    return f"JetPack {board.jetpack}" if board.jetpack else f"L4T {board.l4t}"


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))
