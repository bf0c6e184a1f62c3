"""What a board is, read from files as real boards have them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from testbed.sshd import Sshd

from rollout.jetson.laid_out import BOARDS, lay_out
from tritonforge.errors import CheckFailed
from tritonforge.rollout.jetson.board import Board, Engine, read_board
from tritonforge.rollout.ssh import SshHost

KIB = 1024


@pytest.mark.parametrize(
    ("name", "module", "l4t", "jetpack", "soc", "kernel"),
    [
        ("nano-jp4.6", "NVIDIA Jetson Nano Developer Kit", "32.6.1", "4.6", "tegra210", "4.9.253-tegra"),
        ("orin-nano-jp5.1.1", "NVIDIA Orin Nano Developer Kit", "35.3.1", "5.1.1", "tegra234", "5.10.104-tegra"),
        (
            "orin-nx-jp6.2",
            "NVIDIA Jetson Orin NX Engineering Reference Developer Kit Super",
            "36.4.3",
            "6.2",
            "tegra234",
            "5.15.148-tegra",
        ),
        ("thor-jp7.0", "NVIDIA Jetson AGX Thor Developer Kit", "38.2.0", "7.0", "tegra264", "6.8.12-tegra"),
        ("agx-orin-jp7.2", "NVIDIA Jetson AGX Orin Developer Kit", "39.2.0", "7.2", "tegra234", "6.8.12-1021-tegra"),
    ],
)
def test_module_and_jetpack(
    board_of: Callable[[str], Board], name: str, module: str, l4t: str, jetpack: str, soc: str, kernel: str
) -> None:
    board = board_of(name)
    assert (board.module, board.l4t, board.jetpack, board.soc) == (module, l4t, jetpack, soc)
    assert (board.kernel, board.architecture, board.notes) == (kernel, "aarch64", ())


def test_a_board_with_everything(board_of: Callable[[str], Board]) -> None:
    board = board_of("orin-nano-jp6.2")
    assert board.memory_total == 7759462 * KIB
    assert board.memory_available == 5976883 * KIB
    assert board.swap_free == 3879731 * KIB
    assert board.disk_free == 214958080 * KIB
    assert board.power_mode == "25W"
    assert board.container_toolkit == "1.16.2-1"
    assert board.engine == Engine("29.1.3", ("io.containerd.runc.v2", "nvidia", "runc"), "runc", "/var/lib/docker")


def test_a_jetpack_package_that_is_ahead_of_the_system_is_noted_and_the_system_decides(
    board_of: Callable[[str], Board],
) -> None:
    board = board_of("orin-nano-jp6.2")
    assert (board.l4t, board.jetpack, board.jetpack_major) == ("36.4.3", "6.2.1", "6")
    (note,) = board.notes
    assert "6.2.1+b38" in note and "36.4.3" in note and "6.2's" in note


def test_cuda_and_tensorrt_are_what_the_packages_say(board_of: Callable[[str], Board]) -> None:
    assert (board_of("orin-nx-jp6.2").cuda, board_of("orin-nx-jp6.2").tensorrt) == ("12.6.68", "10.3.0.30")
    assert (board_of("nano-jp4.6").cuda, board_of("nano-jp4.6").tensorrt) == ("10.2.300", "8.0.1.6")
    assert (board_of("thor-jp7.0").cuda, board_of("thor-jp7.0").tensorrt) == (None, None)


def test_what_is_not_there_is_unknown(board_of: Callable[[str], Board]) -> None:
    board = board_of("thor-jp7.0")
    assert board.memory_total is board.disk_free is board.power_mode is board.clocks is None
    assert board.engine.version is None and board.engine.problem == "docker: not found"


def test_clocks_are_fixed_when_each_least_is_the_most(board_of: Callable[[str], Board], tmp_path: Path) -> None:
    assert board_of("agx-orin-jp7.2").clocks == "fixed"


@pytest.mark.parametrize(
    "file", ["sys/class/devfreq/17000000.gpu/min_freq", "sys/devices/system/cpu/cpu7/cpufreq/scaling_min_freq"]
)
def test_clocks_vary_when_the_gpu_s_or_one_processor_s_do(host: SshHost, tmp_path: Path, file: str) -> None:
    root = lay_out("agx-orin-jp7.2", tmp_path / "board")
    (root / file).write_text("306000000\n" if "gpu" in file else "729600\n")
    assert read_board(host, root=str(root)).clocks == "varying"


def test_a_release_file_that_an_upgrade_left_behind_is_noted_and_the_package_decides(
    host: SshHost, tmp_path: Path
) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    status = root / "var/lib/dpkg/status"
    status.write_text(status.read_text().replace("36.4.3-2025", "36.4.4-2025"))
    board = read_board(host, root=str(root))
    assert (board.l4t, board.jetpack) == ("36.4.4", "6.2.1")
    assert board.notes == ("/etc/nv_tegra_release says 36.4.3, the package nvidia-l4t-core 36.4.4",)


def test_a_jetson_linux_that_is_not_in_the_table_has_its_major_jetpack(host: SshHost, tmp_path: Path) -> None:
    root = lay_out("orin-nx-jp6.2", tmp_path / "board")
    release = root / "etc/nv_tegra_release"
    release.write_text(release.read_text().replace("REVISION: 4.3", "REVISION: 9.1"))
    board = read_board(host, root=str(root))
    assert (board.l4t, board.jetpack, board.jetpack_major) == ("36.9.1", "6", "6")


def test_a_package_that_was_removed_does_not_count(host: SshHost, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    status = root / "var/lib/dpkg/status"
    head, _, tail = status.read_text().partition("install ok installed")
    status.write_text(f"{head}deinstall ok config-files{tail}")
    assert read_board(host, root=str(root)).jetpack == "6.2"


def test_an_engine_that_does_not_let_this_user_in_says_so_in_its_words(host: SshHost, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    script = root / "usr/bin/docker"
    script.write_text(
        "#!/bin/sh\nprintf '\\n\\n\\n\\n'\n"
        "echo 'permission denied while trying to connect to the Docker daemon socket' >&2\nexit 1\n"
    )
    engine = read_board(host, root=str(root)).engine
    assert engine.version is None and engine.problem is not None and "permission denied" in engine.problem


def test_a_machine_that_is_no_jetson_is_told_apart(host: SshHost, tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="is no Jetson") as caught:
        read_board(host, root=str(tmp_path))
    assert "kind docker" in str(caught.value.hint)


def test_it_takes_one_round_trip(sshd: Sshd, host: SshHost, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    host.connect()
    log = sshd.folder / "sshd.log"
    before = log.read_text().count("Starting session")
    read_board(host, root=str(root))
    assert log.read_text().count("Starting session") == before + 1


@pytest.mark.parametrize("name", sorted(folder.name for folder in BOARDS.iterdir()))
def test_every_board_says_from_where_it_is(name: str) -> None:
    source = (BOARDS / name / "SOURCE").read_text()
    assert "https://github.com/" in source
    files = [path for path in (BOARDS / name).rglob("*") if path.is_file() and path.name != "SOURCE"]
    assert files
    for file in files:
        path = file.relative_to(BOARDS / name)
        assert str(path) in source or (path.parts[1] == "sys" and "below root/sys" in source), path
