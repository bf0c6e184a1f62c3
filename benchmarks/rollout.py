"""What a rollout costs on the embedded target: bytes and time of a delivery, latency while traffic moves, `status`.

    python benchmarks/rollout.py delivery [--gigabytes 2] [--rounds 3] [--json]
    python benchmarks/rollout.py switch [--rounds 3] [--json]
    python benchmarks/rollout.py status [--models 200] [--rounds 5] [--json]

Each is held against an alternative in the same run: `cp -r` and `rsync -a` of the repository; the same clients just
before; the server's own answer about its models. Needs HAProxy, and rsync where that is to be compared with.
"""

from __future__ import annotations

import argparse
import http.client
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

PROGRAM = Path(sys.executable).with_name("tritonforge")
TESTS = Path(__file__).parents[1] / "tests"
MODEL = """\
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        asked = [pb_utils.get_input_tensor_by_name(request, "x").as_numpy() for request in requests]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("y", x + np.float32({addend}))]) for x in asked]
"""
SIGNATURE = {"inputs": {"x": "FP32[4]"}, "outputs": {"y": "FP32[4]"}, "max_batch_size": 4}


class Site:
    """A spec with one embedded target in a folder of its own."""

    def __init__(self, root: Path) -> None:
        from tritonforge.triton import ports
        from tritonforge.triton.embedded import install

        self.root = root
        self.runtime = install()
        self.ports = dict(zip(("http", "grpc", "metrics"), (ports.free("127.0.0.1") for _ in range(3)), strict=True))
        self.environment = {**os.environ, "TRITONFORGE_HOME": str(root / "home"), "OMP_NUM_THREADS": "1"}
        self.environment.pop("PYTHONDONTWRITEBYTECODE", None)  # every start would compile the package anew
        (root / "home").mkdir(parents=True)
        (root / "home" / "runtimes").symlink_to(self.runtime.root.parent)

    def write(self, models: dict[str, Any], hold: float = 2.0, **more: Any) -> None:
        rollout = {"weights": [5, 25, 50, 100], "analysis": {"hold_s": hold, "latency_ratio_max": None}}
        target = {"kind": "embedded", "folder": "target", "ports": self.ports, "rollout": rollout}
        spec = {"apiVersion": "tritonforge/v1", "name": "bench", "models": models, "targets": {"here": target}, **more}
        (self.root / "forge.yaml").write_text(yaml.safe_dump(spec))

    def python(self, name: str, addend: float, data: int = 0) -> None:
        """The folder of a Python model, with so many bytes that cannot be compressed beside it."""
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        (folder / "model.py").write_text(MODEL.format(addend=addend))
        if data and not (folder / "weights.bin").exists():
            with (folder / "weights.bin").open("wb") as stream:
                for _ in range(data >> 20):
                    stream.write(os.urandom(1 << 20))

    def run(self, *arguments: str) -> Any:
        ran = subprocess.run(
            [str(PROGRAM), *arguments, "--spec", str(self.root / "forge.yaml"), "--json"],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"tritonforge {' '.join(arguments)} ended with {ran.returncode}: {ran.stderr}")
        return json.loads(ran.stdout)

    def current(self) -> Path:
        return (self.root / "build" / "local" / "current").resolve()

    def close(self) -> None:
        from tritonforge.rollout.targets.embedded import EmbeddedHost, Public

        if (self.root / "target").exists():
            EmbeddedHost(self.root / "target", self.runtime, Public("127.0.0.1", **self.ports)).remove()


@contextmanager
def site() -> Iterator[Site]:
    with tempfile.TemporaryDirectory(prefix="tritonforge-bench-", dir=os.environ.get("BENCH_FOLDER")) as name:
        made = Site(Path(name) / "site")
        try:
            yield made
        finally:
            made.close()


def timed(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def delivery(gigabytes: float, rounds: int) -> dict[str, Any]:
    """A redeployment that changes one small model of a large repository, beside copies of that repository."""
    from tritonforge.repository.release import read_release
    from tritonforge.rollout.delivery import bundle_of, deliver
    from tritonforge.rollout.place import LocalPlace

    each = int(gigabytes * 1e9 / 4) >> 20 << 20
    with site() as made:
        models = {f"large{number}": {"source": f"large{number}/", **SIGNATURE} for number in range(4)}
        models["small"] = {"source": "small/", **SIGNATURE}
        made.write(models)
        for number in range(4):
            made.python(f"large{number}", 1.0, each)
        made.python("small", 1.0)
        made.run("build")
        copies = {"cp -r": made.root / "cp", "rsync -a": made.root / "rsync"}
        tools = {"cp -r": ["cp", "-r"], "rsync -a": ["rsync", "-a", "--delete"]}
        tools = {name: command for name, command in tools.items() if shutil.which(command[0])}
        place = LocalPlace(made.root / "place")
        place.call("lock", {"token": "t", "holder": {"id": "bench"}})
        seconds: dict[str, list[float]] = {"tritonforge": []}
        moved: list[int] = []
        deliver(place, bundle_of(read_release(made.current())), "t", lambda text: None)
        for name, command in tools.items():
            seconds[name] = []
            subprocess.run([*command, f"{made.current()}/models/", str(copies[name])], check=True)
        for number in range(rounds):
            made.python("small", 2.0 + number)
            made.run("build")
            bundle = bundle_of(read_release(made.current()))
            said: dict[str, Any] = {}

            def bring(said: dict[str, Any] = said, bundle: Any = bundle) -> None:
                said.update(deliver(place, bundle, "t", lambda text: None))

            seconds["tritonforge"].append(timed(bring))
            moved.append(said["bytes"])
            for name, command in tools.items():
                if name == "cp -r":
                    shutil.rmtree(copies[name])
                ask = [*command, f"{made.current()}/models/", str(copies[name])]
                seconds[name].append(timed(lambda ask=ask: subprocess.run(ask, check=True)))  # type: ignore[misc]
        size = sum(path.stat().st_size for path in made.current().rglob("*") if path.is_file())
        whole = timed(lambda: made.run("deploy", "here"))
        made.python("small", 99.0)
        made.run("build")
        again = timed(lambda: made.run("deploy", "here"))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "repository_bytes": size,
        "moved_bytes": int(statistics.median(moved)),
        "seconds": medians,
        "ratios": {name: medians["tritonforge"] / value for name, value in medians.items() if name != "tritonforge"},
        "first_deploy_seconds": whole,
        "redeploy_seconds": again,
    }


def written_since(journal: Path, size: int) -> list[dict[str, Any]]:
    """The events of a journal behind its first ``size`` bytes; read as a file, so that looking costs the clients
    nothing."""
    with journal.open("rb") as stream:
        stream.seek(size)
        return [json.loads(line) for line in stream.read().splitlines(keepends=True) if line.endswith(b"\n")]


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def switch(rounds: int) -> dict[str, Any]:
    """The clients' p99 from the first move of traffic to the commit, over that of as long a time just before."""
    sys.path.insert(0, str(TESTS))
    import numpy as np

    traffic = importlib.import_module("traffic")

    ratios, errors, requests, figures = [], 0, 0, []
    with site() as made:
        made.write({"net": {"source": "net/", **SIGNATURE}}, hold=10.0)
        made.python("net", 1.0)
        made.run("build")
        made.run("deploy", "here")
        journal = made.root / "target" / "journal.jsonl"
        values = np.zeros((1, 4), np.float32)
        with traffic.Traffic(
            f"127.0.0.1:{made.ports['http']}", f"127.0.0.1:{made.ports['grpc']}", "net", {"x": values}, pause=0.002
        ) as clients:
            clients.wait_for(500)
            for number in range(rounds):
                made.python("net", 2.0 + number)
                made.run("build")
                before = journal.stat().st_size
                asked = subprocess.Popen(
                    [str(PROGRAM), "deploy", "here", "--spec", str(made.root / "forge.yaml"), "--json"],
                    env=made.environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                began = ended = 0.0
                while asked.poll() is None:
                    events = written_since(journal, before)
                    if not began and any(event.get("step") == "shift-5" for event in events):
                        began = time.monotonic()
                    if began and not ended and any(event["event"] == "committed" for event in events):
                        ended = time.monotonic()
                    time.sleep(0.05)
                if asked.returncode or not began:
                    raise SystemExit(f"the deployment ended with {asked.returncode}")
                length = ended - began
                time.sleep(1.0)
                quiet_began = time.monotonic()
                time.sleep(length)
                quiet = [took for at, took in clients.latencies if quiet_began <= at < quiet_began + length]
                during = [took for at, took in clients.latencies if began <= at < ended]
                ratios.append(percentile(during, 0.99) / percentile(quiet, 0.99))
                figures.append(
                    {"p99_quiet_ms": percentile(quiet, 0.99) * 1e3, "p99_moving_ms": percentile(during, 0.99) * 1e3}
                )
            errors, requests = len(clients.failures), clients.total
    return {"p99_ratio": statistics.median(ratios), "rounds": figures, "requests": requests, "errors": errors}


def status(models: int, rounds: int) -> dict[str, Any]:
    """`status` and `diff` of a target with so many models, beside the time of the server's own index."""
    with site() as made:
        step = [{"model": "net"}]
        names = [f"chain{number:03}" for number in range(models - 1)]
        ensembles = {name: {"inputs": ["x"], "outputs": ["y"], "steps": step} for name in names}
        made.write({"net": {"source": "net/", **SIGNATURE}}, ensembles=ensembles)
        made.python("net", 1.0)
        made.run("build")
        made.run("deploy", "here")
        ports = json.loads((made.root / "target" / "ports.json").read_text())["blue"]
        counted: list[int] = []

        def own(configs: bool) -> None:
            """The server's answers that a command needs, asked for one after the other over one connection."""
            connection = http.client.HTTPConnection("127.0.0.1", ports[0])
            connection.request("POST", "/v2/repository/index", "{}", {"Content-Type": "application/json"})
            counted.append(len(json.loads(connection.getresponse().read())))
            for name in ["net", *names] if configs else []:
                connection.request("GET", f"/v2/models/{name}/config")
                connection.getresponse().read()
            connection.close()

        seconds: dict[str, list[float]] = {"index": [], "index and configs": [], "status": [], "diff": []}
        for _ in range(rounds):
            seconds["index"].append(timed(lambda: own(False)))
            seconds["index and configs"].append(timed(lambda: own(True)))
            seconds["status"].append(timed(lambda: made.run("status", "here")))
            seconds["diff"].append(timed(lambda: made.run("diff", "here")))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    beside = {"status": medians["status"] - medians["index"], "diff": medians["diff"] - medians["index and configs"]}
    return {"models": counted[-1], "seconds": medians, "beside_the_servers_own": beside}


def main() -> int:
    """Measure what is asked for; exit status 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["delivery", "switch", "status"])
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.what == "delivery":
        found = delivery(given.gigabytes, given.rounds)
        good = found["moved_bytes"] < 10_000
    elif given.what == "switch":
        found = switch(given.rounds)
        good = found["p99_ratio"] <= 1.1 and not found["errors"]
    else:
        found = status(given.models, given.rounds)
        good = all(value < 1.0 for value in found["beside_the_servers_own"].values())
    load = os.getloadavg()[0]
    found["machine"] = {"cores": os.cpu_count(), "load": round(load, 1)}
    print(json.dumps(found) if given.json else yaml.safe_dump(found, sort_keys=False), end="")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
