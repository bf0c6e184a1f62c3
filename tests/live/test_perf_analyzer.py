"""perf_analyzer against a server whose counters come slowly: its requests are over before it has read them."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from conftest import Write, doubling

from tritonforge.measure import Outcome, PerfRun, run
from tritonforge.triton import Client, RunningServer
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.live, pytest.mark.slow]

HELD_S = 0.2
"""Longer than eight requests take, shorter than 512."""


@pytest.fixture
def front(server: RunningServer) -> Iterator[str]:
    """The address of a front of the server that holds requests for a model's statistics for ``HELD_S``."""
    target = server.connection.http
    assert target is not None

    class Front(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.path.endswith("/stats"):
                time.sleep(HELD_S)
            behind = http.client.HTTPConnection(target.removeprefix("http://"))
            names = [name for name in self.headers if name.lower() not in ("host", "accept-encoding")]
            behind.request(self.command, self.path, body, {name: self.headers[name] for name in names})
            answer = behind.getresponse()
            data = answer.read()
            behind.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("content-length", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = pass_on  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Nothing: the tests' output is not its log."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Front) as listening:
        serving = threading.Thread(target=listening.serve_forever)
        serving.start()
        yield f"127.0.0.1:{listening.server_port}"
        listening.shutdown()
        serving.join()


def test_a_fast_model_behind_slow_counters_is_measured(
    runtime: Runtime, client: Client, write: Write, front: str, tmp_path: Path
) -> None:
    write("swift", None, {"model.onnx": doubling([4])})
    client.load("swift")
    asked = PerfRun(
        program=runtime.perf_analyzer, model="swift", url=front, work_dir=tmp_path, env=runtime.perf_env(),
        protocol="http", concurrency=(2,), measurement_interval_ms=100, windows=5,
    )  # fmt: skip
    (level,) = run(asked).levels
    assert level.outcome is Outcome.MEASURED, level
    assert level.requests > 0
    probes = tmp_path / "concurrency-2" / "probe" / "perf_analyzer.log"
    assert "Sending 8 benchmark requests" not in probes.read_text(), "the first probe was not over too soon"
