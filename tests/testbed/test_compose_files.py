"""compose.yaml and what stands beside it, without an engine: each file is taken by the program that reads it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed import compose_proxy
from testbed.compose_stack import COMPOSE_FILE, ROOT, Stack, compose_program
from tritonforge.rollout.targets.images import PROXY_IMAGE
from tritonforge.triton.embedded.machine import vendor_image

PROMETHEUS = ROOT / "templates" / "prometheus"
GRAFANA = ROOT / "templates" / "grafana"


@pytest.fixture(scope="module")
def stack() -> Stack:
    return Stack(compose_program(), "tritonforge-files-test")


def config(stack: Stack, *profiles: str, **environment: str) -> dict[str, Any]:
    words = [word for profile in profiles for word in ("--profile", profile)]
    read: dict[str, Any] = json.loads(stack.run(*words, "config", "--format", "json", **environment).stdout)
    return read


def mount(service: dict[str, Any], target: str) -> dict[str, Any]:
    (found,) = [entry for entry in service["volumes"] if entry["target"] == target]
    return dict(found)


def test_plain_use_runs_one_slot_and_what_watches_it(stack: Stack) -> None:
    assert set(config(stack)["services"]) == {"blue", "haproxy", "prometheus"}
    everything = config(stack, "rollout", "grafana")["services"]
    assert set(everything) == {"blue", "green", "haproxy", "keeper", "prometheus", "grafana"}


def test_plain_use_serves_the_repository_that_make_demo_builds(stack: Stack) -> None:
    blue = config(stack)["services"]["blue"]
    assert mount(blue, "/tritonforge") == {
        "type": "bind",
        "source": str(ROOT / "repositories/file-type/build/local/current/models"),
        "target": "/tritonforge",
        "read_only": True,
        "bind": {},
    }
    assert blue["command"][:2] == ["tritonserver", "--model-repository=/tritonforge"]


def test_a_rollout_points_the_services_at_its_volumes(stack: Stack) -> None:
    settings = {
        "MODELS": "state",
        "MODELS_TYPE": "volume",
        "PROXY": "proxy",
        "PROXY_MODE": "rw",
        "GREEN_RELEASE": "/tritonforge/snapshots/abc/models",
        "GREEN_IMAGE": "triton@sha256:0",
        "GREEN_ARGUMENTS": "--grpc-infer-response-compression-level=none --log-verbose=1",
    }
    services = config(stack, "rollout", **settings)["services"]
    for slot in ("blue", "green"):
        assert (
            mount(services[slot], "/tritonforge")["source"],
            mount(services[slot], "/tritonforge")["read_only"],
        ) == (
            "state",
            True,
        )
    assert services["green"]["image"] == "triton@sha256:0"
    assert services["green"]["command"][1] == "--model-repository=/tritonforge/snapshots/abc/models"
    assert services["green"]["command"][-2:] == settings["GREEN_ARGUMENTS"].split()
    assert services["blue"]["image"] == vendor_image()
    writable = mount(services["haproxy"], "/tritonforge/proxy")
    assert (writable["type"], writable["source"], writable.get("read_only", False)) == ("volume", "proxy", False)


def test_nothing_listens_beyond_loopback_unless_it_is_told_to(stack: Stack) -> None:
    services = config(stack, "rollout", "grafana", BIND="0.0.0.0")["services"]
    for name, service in services.items():
        hosts = {port["host_ip"] for port in service.get("ports", [])}
        assert hosts <= ({"0.0.0.0"} if name == "haproxy" else {"127.0.0.1"}), name
    for service in config(stack, "rollout", "grafana")["services"].values():
        assert {port["host_ip"] for port in service.get("ports", [])} <= {"127.0.0.1"}


def test_every_service_is_hardened_and_bounded(stack: Stack) -> None:
    services = config(stack, "rollout", "grafana")["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["restart"] == "unless-stopped", name
        assert service["pids_limit"] > 0, name
        assert name in ("blue", "green") or int(service["mem_limit"]) > 0, name
        assert name == "keeper" or service["healthcheck"]["test"], name


def test_images_are_those_of_tritonforge_and_pinned(stack: Stack) -> None:
    services = config(stack, "rollout", "grafana")["services"]
    assert services["haproxy"]["image"] == PROXY_IMAGE
    assert {services[name]["image"] for name in ("blue", "green", "keeper")} == {vendor_image()}
    for name in ("haproxy", "prometheus", "grafana"):
        assert re.search(r"@sha256:[0-9a-f]{64}$", services[name]["image"]), name


def test_the_proxys_configuration_is_that_of_the_template() -> None:
    assert compose_proxy.FILE.read_text() == compose_proxy.text(), "run `python tests/testbed/compose_proxy.py`"


@pytest.fixture
def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        pytest.skip("there is no promtool on this machine (Debian: prometheus)")
    return found


def test_prometheus_takes_its_configuration(promtool: str) -> None:
    done = subprocess.run([promtool, "check", "config", PROMETHEUS / "prometheus.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_raised_when_they_should_be_and_not_else(promtool: str, tmp_path: Path) -> None:
    shutil.copy(PROMETHEUS / "rules.yaml", tmp_path)
    shutil.copy(Path(__file__).with_name("prometheus_rules.yaml"), tmp_path)
    words = [promtool, "test", "rules", str(tmp_path / "prometheus_rules.yaml")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def expressions() -> Iterator[str]:
    board = json.loads((GRAFANA / "dashboards" / "tritonforge.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def test_every_panel_asks_something_that_prometheus_understands(promtool: str, tmp_path: Path) -> None:
    asked = [
        text.replace("$__rate_interval", "1m").replace("$slot", ".*").replace("$model", ".*") for text in expressions()
    ]
    assert len(asked) > 12
    rules = [{"record": f"r:{number}", "expr": text} for number, text in enumerate(asked)]
    file = tmp_path / "panels.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    done = subprocess.run([promtool, "check", "rules", str(file)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_stand_beside_one_another_and_ask_the_datasource_that_is_provisioned() -> None:
    board = json.loads((GRAFANA / "dashboards" / "tritonforge.json").read_text())
    source = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "prometheus.yaml").read_text())["datasources"][
        0
    ]
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not taken & cells, panel["title"]
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == source["uid"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    assert source["url"] == "http://prometheus:9090"
    folder = yaml.safe_load((GRAFANA / "provisioning" / "dashboards" / "tritonforge.yaml").read_text())
    assert folder["providers"][0]["options"]["path"] == "/etc/tritonforge/dashboards"
    assert '"${GRAFANA:-./templates/grafana}:/etc/tritonforge:ro"' in COMPOSE_FILE.read_text()
