"""A Triton that somebody installed with their own chart becomes a target's first release, and is never restarted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli.commands import Workshop

from testbed import haproxy_image
from testbed.helm_site import Site, close_cluster, eventually, open_cluster
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.testbed, pytest.mark.slow]
THEIRS = "theirs"
# As many hand-made charts are: ports named in the vendor's way, the Service on a port of its own.
WORKLOAD = """\
apiVersion: apps/v1
kind: Deployment
metadata: {{name: models, labels: {{app: models}}}}
spec:
  selector: {{matchLabels: {{app: models}}}}
  template:
    metadata: {{labels: {{app: models}}}}
    spec:
      containers:
        - name: server
          image: {image}
          args: [tritonserver, --model-repository=/models]
          ports:
            - {{name: http, containerPort: 8000, protocol: TCP}}
            - {{name: grpc, containerPort: 8001, protocol: TCP}}
            - {{name: metrics, containerPort: 8002, protocol: TCP}}
          readinessProbe: {{httpGet: {{path: /v2/health/ready, port: http}}, periodSeconds: 1}}
          env: [{{name: OMP_NUM_THREADS, value: "1"}}]
          volumeMounts: [{{name: models, mountPath: /models}}]
      volumes: [{{name: models, hostPath: {{path: {models}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: models}}
spec:
  selector: {{app: models}}
  ports:
    - {{name: http-inference-server, port: 80, targetPort: http, protocol: TCP}}
    - {{name: grpc-inference-server, port: 8001, targetPort: grpc, protocol: TCP}}
"""


@pytest.fixture
def site(engine: object, image: str, base: str, runtime: Runtime, tmp_path: Path) -> Iterator[Site]:
    """A target that nothing was deployed to, beside a Triton of somebody else that adds 1."""
    cluster = open_cluster("adopt-helm")
    try:
        if cluster.fake:
            pytest.skip("the cluster's pods do not really run")
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        made = Site(
            Workshop.make(tmp_path / "w", runtime.root.parent), cluster, image, haproxy_image.build(engine, base)
        )
        cluster.add_volume("adopt-helm", f"{made.instance}-models", tmp_path / "volume")
        made.release(1)
        shutil.copytree(made.workshop.folder / "build" / "local" / "current" / "models", tmp_path / "models")
        chart = tmp_path / "chart"
        (chart / "templates").mkdir(parents=True)
        (chart / "Chart.yaml").write_text("{apiVersion: v2, name: models, version: 0.1.0}")
        (chart / "templates" / "all.yaml").write_text(WORKLOAD.format(image=image, models=tmp_path / "models"))
        cluster.helm("install", THEIRS, str(chart), "--wait", "--timeout=120s")
        yield made
    finally:
        close_cluster(cluster, ["adopt-helm"])


def test_it_serves_behind_the_proxies_and_hands_over_without_a_failed_request(site: Site) -> None:
    cluster = site.cluster
    began = cluster.uids("app=models")
    refused = site.said("deploy", "there", "--adopt", "nobody")
    assert refused.code == 2
    assert "there is no Service 'nobody'" in refused.err
    assert "models" in refused.err

    planned = site.deploy("--adopt", "models", "--dry-run")
    assert planned["outcome"] == "planned"
    assert [item["metadata"]["name"] for item in cluster.get("deployments")] == ["models"]
    first = site.deploy("--adopt", "models")["release"]
    assert first == planned["release"]
    status = site.deploy(command="status")
    assert (status["release"], status["ready"], status["models"]) == (first, 2, 2)
    assert "adopted from models" in status["slots"][0]["words"]
    assert site.deploy(command="diff")["drift"] == []
    assert "started" in site.said("logs", "there").out.lower()

    with site.traffic() as traffic:
        traffic.wait_for(50)
        second = site.release(2)
        assert site.deploy()["release"] == second
        traffic.wait_for(50)
        assert site.deploy(command="rollback")["release"] == first
        traffic.wait_for(50)
        assert site.deploy()["release"] == second
        # Its slot is needed now: from here on it is a stranger again.
        third = site.release(3)
        assert site.deploy()["release"] == third
        traffic.wait_for(50)
        assert cluster.uids("app=models") == began
        cluster.helm("uninstall", THEIRS)
        eventually(lambda: not cluster.uids("app=models"))
        traffic.wait_for(50)
    print(f"{traffic.total} requests, the slowest {traffic.slowest:.2f} s")
    assert traffic.failures == []
    history = site.deploy(command="history")["history"]
    assert [event["what"] for event in history] == ["adopt", "deploy", "rollback", "deploy", "deploy"]
    again = site.said("deploy", "there", "--adopt", "models")
    assert again.code == 2
