"""Evidence is whole, and says on which machine it was taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tritonforge.errors import SpecError
from tritonforge.measure import FailureCount, GateEvidence, Gpu, Hardware, Level, Outcome, Slo, Verdict, describe, judge
from tritonforge.measure.export import read_export
from tritonforge.measure.level import Reported
from tritonforge.measure.statistics import cut_by_time, summarise

from .conftest import DATA


def evidence() -> GateEvidence:
    (experiment,) = read_export(DATA / "steady.json")
    empty = Level(2, 1, Outcome.MEASURED, reported=Reported(1.0, 2.0, None, 3.0, 4.0), log_tail=("a",))
    measured = summarise(empty, cut_by_time(experiment.spans, experiment.boundaries[0], experiment.boundaries[-1], 4))
    result = judge(Slo(throughput_min=1), measured, FailureCount("m", 1000, 0, {}))
    machine = Hardware(
        "cpu", "x86_64", 1, 2, 2, 1.5, 10, "6", 0.1, None, (Gpu("T4", "GPU-1", "0000:01:00.0"),), "550.1"
    )
    return GateEvidence(
        model="m",
        release="sha256:ab",
        platform="cloud",
        server_version="2.51.0",
        perf_analyzer_version="2.51.0",
        hardware=describe(),
        settings={"batch_size": 1},
        levels=(measured,),
        results=(result,),
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:01:00+00:00",
        notes=("note",),
        server_hardware=machine,
        slo={"throughput_min": 1},
    )


def test_evidence_survives_json() -> None:
    before = evidence()
    text = json.dumps(before.to_json(), allow_nan=False)
    assert GateEvidence.from_json(json.loads(text)) == before
    assert json.loads(text)["verdict"] == "pass"


def test_a_level_that_was_not_judged_makes_it_inconclusive() -> None:
    whole = evidence().to_json()
    whole["levels"].append(Level(4, 1, Outcome.TIMEOUT).to_json())
    assert GateEvidence.from_json(whole).verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [("schema", "other/v1", "no gate evidence"), ("levels", None, "damaged"), ("levels", [{"x": 1}], "damaged"),
     ("hardware", {}, "damaged"), ("results", [{"concurrency": 1}], "damaged")],
)  # fmt: skip
def test_damaged_evidence_is_refused(key: str, value: object, says: str) -> None:
    with pytest.raises(SpecError, match=says):
        GateEvidence.from_json({**evidence().to_json(), key: value})


def test_this_machine_is_described() -> None:
    machine = describe()
    assert machine.usable_cpus >= 1
    assert machine.memory_bytes is None or machine.memory_bytes > 1 << 20
    assert Hardware.from_json(json.loads(json.dumps(machine.to_json()))) == machine


def test_a_machine_with_gpus_and_hyperthreads(tmp_path: Path) -> None:
    cpu = "processor\t: {}\nmodel name\t: Some CPU @ 2GHz\nphysical id\t: 0\ncore id\t: {}\n"
    files = {
        "proc/cpuinfo": "\n".join(cpu.format(i, i % 2) for i in range(4)),
        "proc/meminfo": "MemTotal:       2048 kB\nMemFree: 1 kB\n",
        "proc/loadavg": "1.50 1.0 1.0 1/100 5\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5\n",
        "proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA L4\nIRQ: 1\nGPU UUID: \t GPU-123\n",
        "sys/fs/cgroup/cpu.max": "150000 100000\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = describe(tmp_path)
    assert (machine.cpu, machine.cores, machine.threads) == ("Some CPU @ 2GHz", 2, 4)
    assert (machine.memory_bytes, machine.load_1m, machine.cpu_quota) == (2048 * 1024, 1.5, 1.5)
    assert machine.governor == "performance"
    assert machine.gpus == (Gpu("NVIDIA L4", "GPU-123", "0000:01:00.0"),)
    assert machine.gpu_driver == "550.54.15"


def test_a_machine_that_tells_nothing_is_described_with_gaps(tmp_path: Path) -> None:
    machine = describe(tmp_path)
    assert (machine.cpu, machine.cores, machine.memory_bytes, machine.gpus) == (None, None, None, ())
