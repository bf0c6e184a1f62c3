"""The embedded Triton against PyTriton, both serving one ONNX model with ONNX Runtime, over gRPC.

Both servers are up, and one of them is asked at a time: the same perf_analyzer, the same settings, in turns. The ratio
is the median of the ratios within each round. Then the share that each concurrency reaches of ONNX Runtime itself,
called in a loop in a process of its own.

    python benchmarks/serving.py [--rounds 4] [--concurrency 1 4 16] [--peers FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import peers
from claims import Claim, finish
from process_tree import measure, quiet_environment

PROGRAM = str(Path(sys.executable).with_name("tritonforge"))
WIDTH, HIDDEN, LARGEST = 256, 1024, 16
SPEC = f"""\
apiVersion: tritonforge/v1
name: serving
models:
  net:
    source: net.onnx
    max_batch_size: {LARGEST}
    config: {{dynamic_batching: {{}}, instance_group: [{{kind: KIND_CPU, count: 1}}]}}
"""
RAW = """\
import sys, time
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
feeds = {"x": np.zeros((1, int(sys.argv[2])), np.float32)}
for _ in range(200):
    session.run(["y"], feeds)
count, began, until = 0, time.perf_counter(), time.perf_counter() + float(sys.argv[3])
while time.perf_counter() < until:
    session.run(["y"], feeds)
    count += 1
print(count / (time.perf_counter() - began))
"""


def write_model(folder: Path) -> Path:
    """Two dense layers over ``[N, 256]``, half a million weights, beside a spec that serves them."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array((random.standard_normal(shape) / 16).astype(np.float32), name)
        for name, shape in (("w1", (WIDTH, HIDDEN)), ("w2", (HIDDEN, WIDTH)))
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"]),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    folder.mkdir()
    onnx.save_model(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "net.onnx"
    )
    (folder / "forge.yaml").write_text(SPEC, encoding="utf-8")
    return folder / "net.onnx"


@contextlib.contextmanager
def pytriton(python: Path, libraries: str, model: Path, folder: Path) -> Iterator[str]:
    """PyTriton as it comes; its address for gRPC once it answers.

    ``libraries`` name the interpreter's own libpython: with the system's, which its server finds else, the standard
    library of another patch version fails.

    Raises:
        SystemExit: it ended, or was not ready within a minute.
    """
    from tritonforge.triton import ports

    http, grpc, metrics = (ports.free("127.0.0.1") for _ in range(3))
    script = Path(__file__).with_name("pytriton_server.py")
    command = [str(python), str(script), str(model), *map(str, (http, grpc, metrics, LARGEST))]
    environment = {**os.environ, "PYTRITON_HOME": str(folder / "pytriton"), "LD_LIBRARY_PATH": libraries}
    log = folder / "pytriton.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            until = time.monotonic() + 60
            while not _ready(f"http://127.0.0.1:{http}/v2/models/net/ready"):
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"PyTriton does not serve:\n{log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.1)
            yield f"127.0.0.1:{grpc}"
        finally:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 (an address of this machine)
            return bool(answer.status == 200)
    except OSError:
        return False


def check_answers(addresses: dict[str, str], model: Path) -> None:
    """Both servers give what the session gives.

    Raises:
        SystemExit: one does not.
    """
    import onnxruntime
    import tritonclient.grpc as triton

    values = np.random.default_rng(1).standard_normal((3, WIDTH)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"]).run(["y"], {"x": values})[0]
    for name, address in addresses.items():
        with triton.InferenceServerClient(address) as client:
            given = triton.InferInput("x", list(values.shape), "FP32")
            given.set_data_from_numpy(values)
            if not np.allclose(client.infer("net", [given]).as_numpy("y"), expected, atol=1e-5):
                raise SystemExit(f"{name} gives other answers than ONNX Runtime")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--windows", type=int, default=5, help="windows of one second in a measurement (%(default)s)")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--peers", type=Path, default=peers.FOLDER, help="folder of the peer's environment")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    python = peers.peer("pytriton", options.peers) / "python"

    from tritonforge.measure import PerfRun, run
    from tritonforge.measure.level import Outcome
    from tritonforge.triton.embedded import default_home, install
    from tritonforge.triton.embedded.libpython import interpreter_library
    from tritonforge.triton.launch import Launch
    from tritonforge.triton.lifecycle import start

    runtime = install()
    figures: dict[str, dict[int, list[float]]] = {
        name: {level: [] for level in options.concurrency} for name in ("embedded", "pytriton")
    }
    raw: list[float] = []
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        root = Path(name)
        model = write_model(root / "spec")
        measure([PROGRAM, "build"], model.parent, quiet_environment(default_home()))
        repository = model.parent / "build/local/current/models"
        for _ in range(3):
            ask = [sys.executable, "-c", RAW, str(model), str(WIDTH), "2"]
            raw.append(float(subprocess.run(ask, check=True, capture_output=True, text=True).stdout))
        library = interpreter_library(runtime.root.parent)
        libraries = "" if library is None else str(library.parent)
        with start(Launch(repository), runtime) as server, pytriton(python, libraries, model, root) as theirs:
            ours = server.connection.grpc
            assert ours is not None
            addresses = {"embedded": ours, "pytriton": theirs}
            check_answers(addresses, model)
            for number in range(options.rounds):
                for level in options.concurrency:
                    for who in list(addresses) if number % 2 else list(addresses)[::-1]:
                        asked = PerfRun(
                            program=runtime.perf_analyzer,
                            model="net",
                            url=addresses[who],
                            work_dir=root / "perf",
                            env=runtime.perf_env(),
                            concurrency=(level,),
                            windows=options.windows,
                        )
                        found = run(asked).level(level)
                        if found.outcome is not Outcome.MEASURED or found.throughput is None:
                            raise SystemExit(
                                f"{who} at concurrency {level}: {found.reason}\n" + "\n".join(found.log_tail)
                            )
                        figures[who][level].append(found.throughput.value)
                        print(f"{who}, concurrency {level}: {found.throughput.value:.0f}/s", file=sys.stderr)
    middle = {who: {level: statistics.median(of) for level, of in levels.items()} for who, levels in figures.items()}
    alone = statistics.median(raw)
    claims = []
    for level in options.concurrency:
        pairs = zip(figures["embedded"][level], figures["pytriton"][level], strict=True)
        claims.append(
            Claim(
                f"serving, concurrency {level}: at least PyTriton's throughput",
                f"{middle['embedded'][level]:.0f}/s",
                f"PyTriton {middle['pytriton'][level]:.0f}/s",
                statistics.median(mine / its for mine, its in pairs),
                1.0,
                at_least=True,
            )
        )
    for level in options.concurrency:
        claims.append(
            Claim(
                f"serving, concurrency {level}: share of ONNX Runtime in process",
                f"{middle['embedded'][level]:.0f}/s",
                f"session.run {alone:.0f}/s",
                middle["embedded"][level] / alone,
            )
        )
    details = {"rounds": options.rounds, "throughput": figures, "in_process": raw}
    return finish(claims, details, as_json=options.json)


if __name__ == "__main__":
    raise SystemExit(main())
