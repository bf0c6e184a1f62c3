"""The monitor, the alerts and the dashboard ask for what Triton gives."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from helm.chart import NAME, Rendered, merged, render
from helm.combinations import COMBINATIONS, PROXY

GIVEN = {
    "nv_inference_request_success",
    "nv_inference_request_failure",
    "nv_inference_count",
    "nv_inference_exec_count",
    "nv_inference_request_duration_us",
    "nv_inference_queue_duration_us",
    "nv_inference_compute_input_duration_us",
    "nv_inference_compute_infer_duration_us",
    "nv_inference_compute_output_duration_us",
    "nv_inference_request_summary_us",
    "nv_inference_pending_request_count",
    "nv_gpu_utilization",
    "nv_gpu_memory_total_bytes",
    "nv_gpu_memory_used_bytes",
}
"""Of Triton's page on metrics, those that the chart asks for."""


@pytest.fixture
def watched(helm: str) -> Rendered:
    return render(merged(PROXY, COMBINATIONS["watched"]))


def asked(text: str) -> set[str]:
    return set(re.findall(r"\bnv_\w+", text))


def test_the_monitor_reads_each_pod_once_and_says_its_slot_and_release(watched: Rendered) -> None:
    spec = watched.one("ServiceMonitor")["spec"]
    (expression,) = spec["selector"]["matchExpressions"]
    chosen = [
        service["metadata"]["name"]
        for service in watched.of_kind("Service")
        if service["metadata"]["labels"].get(expression["key"]) in expression["values"]
    ]
    assert sorted(chosen) == [f"{NAME}-blue-headless", f"{NAME}-green-headless", f"{NAME}-proxy-control"]
    for name in chosen:
        ports = {port["name"] for port in watched.one("Service", name.removeprefix(NAME))["spec"]["ports"]}
        assert spec["endpoints"][0]["port"] in ports
    assert [item["targetLabel"] for item in spec["endpoints"][0]["relabelings"]] == ["slot", "release"]


def test_alerts_are_rules_that_prometheus_takes(watched: Rendered, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no `promtool` on the path")
    groups = watched.one("PrometheusRule")["spec"]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(groups))
    done = subprocess.run([promtool, "check", "rules", str(tmp_path / "rules.yaml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 rules found" in done.stdout


def test_an_alert_fires_when_requests_fail(watched: Rendered, tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("there is no `promtool` on the path")
    labels = f'namespace="shop",service="{NAME}-blue-headless",model="m"'
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(watched.one("PrometheusRule")["spec"]))
    case = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [
                    {"series": f"nv_inference_request_success{{{labels}}}", "values": "0+90x30"},
                    {"series": f"nv_inference_request_failure{{{labels}}}", "values": "0+10x30"},
                    {"series": f"nv_inference_queue_duration_us{{{labels}}}", "values": "0+90x30"},
                ],
                "alert_rule_test": [
                    {"eval_time": "20m", "alertname": "TritonRequestsWait", "exp_alerts": []},
                    {
                        "eval_time": "20m",
                        "alertname": "TritonRequestsFail",
                        "exp_alerts": [
                            {
                                "exp_labels": {"severity": "critical", "model": "m"},
                                "exp_annotations": {"summary": "10.0 % of the requests to m fail."},
                            }
                        ],
                    },
                ],
            }
        ],
    }
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(case))
    done = subprocess.run([promtool, "test", "rules", "case.yaml"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_metrics_that_triton_has_are_asked_for(watched: Rendered) -> None:
    rules = watched.one("PrometheusRule")["spec"]["groups"][0]["rules"]
    dashboard = json.loads(watched.one("ConfigMap", "-dashboard")["data"][f"{NAME}.json"])
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert asked(" ".join([*targets, *(rule["expr"] for rule in rules)])) <= GIVEN
    assert all(asked(target) for target in targets)
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_pods_say_where_their_metrics_are_where_that_is_wanted(watched: Rendered, helm: str) -> None:
    def annotations(rendered: Rendered, suffix: str) -> dict[str, str]:
        found: dict[str, str] = rendered.one("Deployment", suffix)["spec"]["template"]["metadata"]["annotations"]
        return found

    assert annotations(watched, "-blue")["prometheus.io/port"] == "8002"
    assert annotations(watched, "-proxy")["prometheus.io/port"] == "8405"
    assert "prometheus.io/port" not in annotations(render(), "-blue")
