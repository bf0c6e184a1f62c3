"""``tritonforge doctor``: the real program, on this machine and on boards behind a real sshd."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any, Protocol

import pytest
from testbed.sshd import Sshd

from rollout.jetson.laid_out import lay_out
from tritonforge.actions import doctor
from tritonforge.cli.main import run
from tritonforge.errors import ExitCode

PROGRAM = Path(sys.executable).with_name("tritonforge")


class Ask(Protocol):
    """Runs ``doctor --json`` in a folder, with an environment: its exit code and its one object."""

    def __call__(self, folder: Path, *words: str, **environment: str) -> tuple[int, dict[str, Any]]: ...


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Ask:
    def run_doctor(folder: Path, *words: str, **environment: str) -> tuple[int, dict[str, Any]]:
        with monkeypatch.context() as given:
            given.chdir(folder)
            for name, value in environment.items():
                given.setenv(name, value)
            with pytest.raises(SystemExit) as left:
                run(["doctor", "--json", *words])
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1, printed
        return left.value.code, json.loads(printed)  # type: ignore[return-value]

    return run_doctor


def states(said: dict[str, Any]) -> dict[str, str]:
    return {item["name"]: item["state"] for item in said["findings"]}


def found(said: dict[str, Any], name: str) -> dict[str, Any]:
    (item,) = (item for item in said["findings"] if item["name"] == name)
    return dict(item)


def write_spec(folder: Path, targets: str, triton: str = "25.06") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "forge.yaml").write_text(
        f'apiVersion: tritonforge/v1\nname: tiny\nplatforms:\n  edge: {{triton: "{triton}"}}\n'
        f"models:\n  a: {{source: a.onnx}}\ntargets:\n{targets}"
    )
    return folder


def jetson(sshd: Sshd, root: Path, more: str = "") -> str:
    options = sshd.client
    return (
        f"  edge:\n    kind: jetson\n    address: {sshd.address}\n    board_root: {root}\n{more}"
        f"    ssh: {{identity: {options.identity}, config: {options.config}, known_hosts: {options.known_hosts}}}\n"
    )


def test_without_a_target_it_tells_what_this_machine_has_and_needs_no_spec(ask: Ask, tmp_path: Path) -> None:
    code, said = ask(tmp_path)
    assert code == 0 and said["ok"] is True and said["target"] is None
    assert {"Python", "home", "embedded Triton", "Docker engine", "haproxy", "ssh", "helm", "GPU"} <= set(states(said))
    assert "lacks" not in states(said).values()
    assert found(said, "Python")["found"].startswith(".".join(map(str, sys.version_info[:3])))


def test_what_nothing_asks_for_may_lack(ask: Ask, tmp_path: Path) -> None:
    code, said = ask(tmp_path, PATH=str(tmp_path), DOCKER_HOST="unix:///nowhere.sock")
    assert code == 0
    for name in ("helm", "haproxy", "ssh", "Docker engine"):
        item = found(said, name)
        assert item["state"] == "warn" and item["found"], name
    assert "kind helm" in found(said, "helm")["hint"]


def test_what_a_target_needs_must_not_lack(ask: Ask, tmp_path: Path) -> None:
    folder = write_spec(tmp_path / "spec", "  prod: {kind: helm}\n  here: {kind: embedded}\n")
    code, said = ask(folder, "--target", "prod", PATH=str(tmp_path))
    assert code == 3 and said["ok"] is False and said["kind"] == "helm"
    assert states(said)["helm"] == "lacks" and "haproxy" not in states(said)
    code, said = ask(folder, "--target", "here", PATH=str(tmp_path))
    assert code == 3 and states(said)["haproxy"] == "lacks" and "helm" not in states(said)


@pytest.mark.parametrize(
    ("version", "state"), [("v3.13.1+g1", "lacks"), ("v3.14.0+g2", "ok"), ("v4.1.0+g3", "ok"), ("what?", "lacks")]
)
def test_a_helm_that_is_too_old_lacks(ask: Ask, tmp_path: Path, version: str, state: str) -> None:
    helm = tmp_path / "bin" / "helm"
    helm.parent.mkdir()
    helm.write_text(f"#!/bin/sh\n[ $1 = version ] && echo '{version}' && exit 0\necho 'no cluster' >&2; exit 1\n")
    helm.chmod(0o755)
    folder = write_spec(tmp_path / "spec", "  prod: {kind: helm}\n")
    code, said = ask(folder, "--target", "prod", PATH=f"{helm.parent}:/usr/bin:/bin")
    assert states(said)["helm"] == state
    assert (code, found(said, "cluster")["found"]) == (3, "no cluster")


def test_a_target_that_the_spec_has_not_is_wrong_usage(ask: Ask, tmp_path: Path) -> None:
    folder = write_spec(tmp_path / "spec", "  edge: {kind: embedded}\n")
    code, said = ask(folder, "--target", "edgy")
    assert code == 2 and "edge" in said["hint"]


_Usage = namedtuple("_Usage", "total used free")


@pytest.mark.parametrize(("free", "state"), [(100_000_000, "lacks"), (2_000_000_000, "warn"), (9_000_000_000, "ok")])
def test_a_full_disk_lacks(monkeypatch: pytest.MonkeyPatch, home: Path, free: int, state: str) -> None:
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: _Usage(10**12, 0, free))
    (item,) = (item for item in doctor.machine() if item.name == "home")
    assert item.state == state and str(home) in item.found
    wanted = ExitCode.ENVIRONMENT if state == "lacks" else ExitCode.OK
    assert doctor.Diagnosis((item,)).exit_code == wanted


def test_a_jetson_is_told_with_its_image_flags_and_room(ask: Ask, sshd: Sshd, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    folder = write_spec(tmp_path / "spec", jetson(sshd, root))
    code, said = ask(folder, "--target", "edge")
    assert code == 0 and said["kind"] == "jetson"
    assert found(said, "module")["found"].startswith("NVIDIA Jetson Orin Nano")
    assert found(said, "image")["found"] == "nvcr.io/nvidia/tritonserver:25.06-py3-igpu"
    assert found(said, "run flags")["found"] == "--runtime nvidia --gpus all"
    assert said["board"]["l4t"] == "36.4.3" and said["image"]["sources"]
    assert [(item["slots"], item["ok"]) for item in said["room"]["slots"]] == [(2, True), (1, True)]
    assert states(said)["two slots"] == "ok" and states(said)["clocks"] == "warn"


def test_the_table_is_for_people(sshd: Sshd, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    folder = write_spec(tmp_path / "spec", jetson(sshd, root))
    ran = subprocess.run([PROGRAM, "doctor", "--target", "edge"], cwd=folder, capture_output=True, text=True)
    assert ran.returncode == 0 and ran.stderr == ""
    lines = {line.split("  ")[0].strip(): line for line in ran.stdout.splitlines()}
    assert "edge (jetson)" in ran.stdout and "5.7 of 7.4 GiB available" in lines["memory"]
    assert "25W" in lines["power mode"] and " ok " in lines["power mode"]


def test_a_board_without_room_for_two_servers_is_told_what_fits(ask: Ask, sshd: Sshd, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    (root / "proc/meminfo").write_text("MemTotal: 4000000 kB\nMemAvailable: 2600000 kB\n")
    two = write_spec(tmp_path / "two", jetson(sshd, root))
    code, said = ask(two, "--target", "edge")
    assert code == 3 and states(said)["two slots"] == "lacks" and states(said)["one slot"] == "ok"
    assert "strategy: one-slot" in found(said, "two slots")["hint"]
    one = write_spec(tmp_path / "one", jetson(sshd, root, "    strategy: one-slot\n"))
    code, said = ask(one, "--target", "edge")
    assert code == 0 and states(said)["two slots"] == "warn" and states(said)["one slot"] == "ok"


def test_a_board_that_no_image_serves_lacks_it_and_is_told_the_ways(ask: Ask, sshd: Sshd, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp5.1.1", tmp_path / "board")
    folder = write_spec(tmp_path / "spec", jetson(sshd, root))
    code, said = ask(folder, "--target", "edge")
    item = found(said, "image")
    assert (code, item["state"], said["image"]) == (3, "lacks", None)
    assert "JetPack 5.1.1" in item["found"] and "tarball" in item["hint"]


def test_a_board_that_is_not_reached_lacks(ask: Ask, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    targets = jetson(sshd, tmp_path).replace(str(sshd.client.known_hosts), str(tmp_path / "empty"))
    code, said = ask(write_spec(tmp_path / "spec", targets), "--target", "edge")
    item = found(said, "board")
    assert (code, item["state"]) == (3, "lacks") and "host key" in item["found"] and "fingerprint" in item["hint"]


def test_nothing_is_changed(ask: Ask, sshd: Sshd, tmp_path: Path) -> None:
    root = lay_out("orin-nano-jp6.2", tmp_path / "board")
    folder = write_spec(tmp_path / "spec", jetson(sshd, root))
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    ask(folder, "--target", "edge")
    assert sorted(str(path) for path in tmp_path.rglob("*")) == before
