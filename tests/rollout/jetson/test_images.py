"""Which image serves on a board, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.jetson.board import Board, Engine
from tritonforge.rollout.jetson.images import choose
from tritonforge.rollout.jetson.table import jetpack_of_l4t, rows

ENGINE = Engine("29.1.3", ("nvidia", "runc"), "runc", "/var/lib/docker")
BoardOf = Callable[[str], Board]


def served(board: Board) -> Board:
    """The board with an engine: not every publication shows one."""
    return replace(board, engine=ENGINE)


@pytest.mark.parametrize(
    ("name", "wanted", "image"),
    [
        ("orin-nano-jp6.2", None, "nvcr.io/nvidia/tritonserver:26.02-py3-igpu"),
        ("orin-nano-jp6.2", "24.10", "nvcr.io/nvidia/tritonserver:24.10-py3-igpu"),
        ("orin-nx-jp6.2", "26.02", "nvcr.io/nvidia/tritonserver:26.02-py3-igpu"),
        ("orin-nx-jp6.2", "23.12", "nvcr.io/nvidia/tritonserver:23.12-py3-igpu"),
        ("thor-jp7.0", None, "nvcr.io/nvidia/tritonserver:26.03-py3"),
        ("agx-orin-jp7.2", "26.08", "nvcr.io/nvidia/tritonserver:26.08-py3"),
    ],
)
def test_the_image_follows_from_the_jetpack(board_of: BoardOf, name: str, wanted: str | None, image: str) -> None:
    chosen = choose(served(board_of(name)), wanted)
    assert chosen.image == image
    assert chosen.flags == "--runtime nvidia --gpus all"
    assert chosen.sources and chosen.notes


@pytest.mark.parametrize(
    ("name", "wanted", "expected"),
    [
        ("orin-nx-jp6.2", "26.03", "23.12 to 26.02"),
        ("orin-nx-jp6.2", "23.10", "23.12 to 26.02"),
        ("thor-jp7.0", "26.02", "26.03 or newer"),
        ("agx-orin-jp7.2", "24.10", "26.03 or newer"),
    ],
)
def test_a_release_without_an_image_for_the_jetpack_is_refused(
    board_of: BoardOf, name: str, wanted: str, expected: str
) -> None:
    with pytest.raises(CheckFailed, match=f"Triton {re.escape(wanted)} has no image") as caught:
        choose(served(board_of(name)), wanted)
    assert (caught.value.expected, caught.value.found) == (expected, wanted)


@pytest.mark.parametrize(("name", "title"), [("nano-jp4.6", "JetPack 4.6"), ("orin-nano-jp5.1.1", "JetPack 5.1.1")])
def test_before_jetpack_6_there_is_no_image_and_the_error_says_what_can_be_done(
    board_of: BoardOf, name: str, title: str
) -> None:
    with pytest.raises(CheckFailed, match=f"no Triton image for {re.escape(title)}") as caught:
        choose(served(board_of(name)))
    ways = " ".join(caught.value.details)
    assert "tarball" in ways and "kind server" in ways and "image of your own" in ways
    assert "https://github.com/triton-inference-server/" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("thor-jp7.0", "nvcr.io/nvidia/tritonserver:26.02-py3-igpu"),
        ("agx-orin-jp7.2", "nvcr.io/nvidia/tritonserver:25.08-py3-igpu"),
        ("agx-orin-jp7.2", "nvcr.io/nvidia/tritonserver:25.08-py3"),
        ("orin-nx-jp6.2", "nvcr.io/nvidia/tritonserver:25.01-py3"),
        ("orin-nx-jp6.2", "nvcr.io/nvidia/tritonserver:25.01-py3@sha256:" + "a" * 64),
        ("orin-nano-jp5.1.1", "nvcr.io/nvidia/tritonserver:24.02-py3-igpu"),
        ("nano-jp4.6", "nvcr.io/nvidia/tritonserver:23.11-py3-igpu"),
    ],
)
def test_nvidia_s_image_for_another_jetpack_is_refused_though_the_target_names_it(
    board_of: BoardOf, name: str, image: str
) -> None:
    with pytest.raises(CheckFailed):
        choose(served(board_of(name)), image=image)


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("nano-jp4.6", "registry.local/triton-jp4:1"),
        ("orin-nx-jp6.2", "nvcr.io/nvidia/tritonserver:25.06-py3-igpu@sha256:" + "a" * 64),
        ("thor-jp7.0", "registry.local/mine@sha256:" + "b" * 64),
    ],
)
def test_an_image_that_the_target_names_is_taken(board_of: BoardOf, name: str, image: str) -> None:
    chosen = choose(served(board_of(name)), "20.01", image=image)
    assert (chosen.image, chosen.runtime, chosen.reason) == (image, "nvidia", "the target names it")


def test_without_gpus_no_runtime_of_nvidia_s_is_needed(board_of: BoardOf) -> None:
    board = replace(board_of("orin-nx-jp6.2"), engine=replace(ENGINE, runtimes=("runc",)))
    chosen = choose(board, gpus=False)
    assert (chosen.runtime, chosen.gpus, chosen.flags, chosen.arguments()) == (None, False, "", {})
    assert choose(board, image="nvcr.io/nvidia/tritonserver:24.10-py3", gpus=False).image.endswith("24.10-py3")


def test_an_engine_without_the_runtime_is_an_error_that_says_how_to_have_it(board_of: BoardOf) -> None:
    board = replace(board_of("orin-nx-jp6.2"), engine=replace(ENGINE, runtimes=("runc",)))
    with pytest.raises(EnvironmentLacks, match="no runtime 'nvidia'") as caught:
        choose(board)
    assert "nvidia-ctk runtime configure" in str(caught.value.hint)


def test_an_engine_that_does_not_answer_is_an_error(board_of: BoardOf) -> None:
    with pytest.raises(EnvironmentLacks, match="does not answer") as caught:
        choose(board_of("thor-jp7.0"))
    assert caught.value.found == "docker: not found"


def test_a_jetpack_of_the_future_is_refused_by_its_name(board_of: BoardOf) -> None:
    board = replace(served(board_of("thor-jp7.0")), l4t="44.1.0", jetpack="9.0")
    with pytest.raises(CheckFailed, match=r"no Triton is known for JetPack 9\.0"):
        choose(board)


def test_another_processor_than_arm_is_refused(board_of: BoardOf) -> None:
    with pytest.raises(CheckFailed, match="not 64-bit ARM"):
        choose(replace(served(board_of("thor-jp7.0")), architecture="x86_64"))


def test_the_arguments_are_the_docker_sdk_s(board_of: BoardOf) -> None:
    pytest.importorskip("docker")
    arguments = choose(served(board_of("orin-nx-jp6.2"))).arguments()
    assert arguments["runtime"] == "nvidia"
    (request,) = arguments["device_requests"]
    assert (request["Count"], request["Capabilities"]) == (-1, [["gpu"]])


def test_every_row_of_the_table_names_its_sources_and_its_bounds_agree() -> None:
    assert [row.jetpack for row in rows()] == ["4", "5", "6", "7"]
    for row in rows():
        assert row.sources and all(source.startswith("https://") for source in row.sources)
        if row.image is None:
            assert row.instead and row.first is row.last is row.default is None
        else:
            assert row.first is not None and row.default is not None and "{release}" in row.image
            assert row.first <= row.default <= (row.last or "99.12")


@pytest.mark.parametrize(
    ("l4t", "jetpack"),
    [
        ("32.7.1", "4.6.1"),
        ("36.4.4", "6.2.1"),
        ("39.2.1", "7.2.1"),
        ("36.4.7", "6"),
        ("34.0.1", "5"),
        ("44.0.0", None),
        ("", None),
    ],
)
def test_jetson_linux_tells_the_jetpack(l4t: str, jetpack: str | None) -> None:
    assert jetpack_of_l4t(l4t) == jetpack
