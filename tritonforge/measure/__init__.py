"""Measure a served model and judge it: perf_analyzer, its statistics, gates and their evidence.

May import only ``errors``, ``durable`` and ``artifact``; numpy is loaded where it is used.
"""

from tritonforge.measure.evidence import GateEvidence
from tritonforge.measure.gate import Condition, GateResult, Slo, Verdict, judge, worst
from tritonforge.measure.hardware import Gpu, Hardware, describe
from tritonforge.measure.input_data import write_input_data
from tritonforge.measure.level import Estimate, Level, Outcome, Reported, Window
from tritonforge.measure.metrics import FailureCount, difference, parse_metrics
from tritonforge.measure.perf_analyzer import PerfResult, run, version
from tritonforge.measure.perf_run import PerfRun, PerfTls

__all__ = [
    "Condition",
    "Estimate",
    "FailureCount",
    "GateEvidence",
    "GateResult",
    "Gpu",
    "Hardware",
    "Level",
    "Outcome",
    "PerfResult",
    "PerfRun",
    "PerfTls",
    "Reported",
    "Slo",
    "Verdict",
    "Window",
    "describe",
    "difference",
    "judge",
    "parse_metrics",
    "run",
    "version",
    "worst",
    "write_input_data",
]
