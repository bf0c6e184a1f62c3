from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from tritonforge.errors import CheckFailed
from tritonforge.triton.embedded.unpack import layout, link_perf_libraries, unpack


@pytest.mark.parametrize(
    ("member", "target"),
    [
        ("pytriton/tritonserver/bin/tritonserver", "bin/tritonserver"),
        ("nvidia_pytriton.libs/libb64-98cb6333.so.0d", "lib/libb64-98cb6333.so.0d"),
        (
            "pytriton/tritonserver/backends/python/libtriton_python.so",
            "backends/python/libtriton_python.so",
        ),
        (
            "pytriton/tritonserver/python_backend_stubs/3.11/triton_python_backend_stub",
            "backends/python/triton_python_backend_stub",
        ),
        ("pytriton/tritonserver/python_backend_stubs/3.12/triton_python_backend_stub", None),
        ("pytriton/tritonserver/caches/local/libtritoncache_local.so", "caches/local/libtritoncache_local.so"),
        ("tritonclient-2.51.0.data/data/bin/perf_analyzer", "perf/perf_analyzer"),
        ("tritonclient-2.51.0.data/data/bin/perf_client", None),
        ("nvidia_pytriton-0.7.0.dist-info/licenses/LICENSE", "licenses/nvidia_pytriton/LICENSE"),
        ("tritonclient-2.51.0.dist-info/LICENSE.txt", "licenses/tritonclient/LICENSE.txt"),
        ("pytriton/triton.py", None),
    ],
)
def test_only_what_is_needed_is_taken(member: str, target: str | None) -> None:
    assert layout(member, "3.11") == target


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "nvidia_pytriton.libs\\..\\evil"])
def test_a_member_that_leaves_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(name, b"x")
    with pytest.raises(CheckFailed, match="leaves its folder"):
        unpack(wheel, tmp_path / "out", "3.11")
    assert not (tmp_path / "evil").exists()


def test_a_link_in_a_wheel_is_refused(tmp_path: Path) -> None:
    wheel = tmp_path / "bad.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        member = zipfile.ZipInfo("nvidia_pytriton.libs/libx.so")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(CheckFailed, match="no plain file"):
        unpack(wheel, tmp_path / "out", "3.11")


def test_programs_can_be_run_and_files_cannot(tmp_path: Path) -> None:
    wheel = tmp_path / "good.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("pytriton/tritonserver/bin/tritonserver", b"x")
        archive.writestr("nvidia_pytriton.libs/libx.so", b"x")
    unpack(wheel, tmp_path / "out", "3.11")
    assert (tmp_path / "out/bin/tritonserver").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out/lib/libx.so").stat().st_mode & 0o777 == 0o644


def test_perf_analyzer_gets_its_two_libraries(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/libb64-1.so.0d").touch()
    (tmp_path / "lib/libcudart-2.so.12.6.77").touch()
    link_perf_libraries(tmp_path)
    assert (tmp_path / "perf/lib/libb64.so.0d").resolve() == tmp_path / "lib/libb64-1.so.0d"
    assert (tmp_path / "perf/lib/libcudart.so.12").resolve() == tmp_path / "lib/libcudart-2.so.12.6.77"
