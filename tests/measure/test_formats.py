"""Reading what the real perf_analyzer wrote, whole and broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.measure.csv_report import parse_csv
from tritonforge.measure.diagnosis import client_limited, diagnose, knows_no_warmup, setup_error
from tritonforge.measure.export import EmptyExport, read_export
from tritonforge.measure.level import Level, Outcome
from tritonforge.measure.process import tail
from tritonforge.measure.statistics import cut_by_count, cut_by_time, summarise

from .conftest import DATA


@pytest.mark.parametrize("name", ["steady", "truncated", "counted"])
def test_scanning_an_export_finds_what_parsing_it_finds(name: str) -> None:
    path = DATA / f"{name}.json"
    parsed = json.loads(path.read_bytes())["experiments"]
    scanned = read_export(path)
    assert [item.value for item in scanned] == [item["experiment"]["value"] for item in parsed]
    for ours, theirs in zip(scanned, parsed, strict=True):
        assert ours.mode == "concurrency"
        assert ours.boundaries == tuple(theirs["window_boundaries"])
        assert ours.spans == tuple((r["timestamp"], r["response_timestamps"][-1]) for r in theirs["requests"])
        assert ours.unanswered == 0


def test_our_figures_agree_with_perf_analyzers_own_over_the_same_windows() -> None:
    (experiment,) = read_export(DATA / "steady.json")
    edges = experiment.boundaries
    level = summarise(Level(2, 1, Outcome.MEASURED), cut_by_time(experiment.spans, edges[0], edges[-1], 3))
    theirs = parse_csv((DATA / "steady.csv").read_text())[2]
    assert level.throughput is not None and level.p50_us is not None and level.p99_us is not None
    assert level.throughput.value == pytest.approx(theirs.throughput, rel=0.01)
    assert level.p50_us.value == pytest.approx(theirs.p50_us, rel=0.01)
    assert level.p99_us.value == pytest.approx(theirs.p99_us, rel=0.05)


def test_counted_requests_are_timed_by_their_answers_not_by_the_padded_second() -> None:
    (experiment,) = read_export(DATA / "counted.json")
    level = summarise(Level(4, 1, Outcome.MEASURED), cut_by_count(experiment.spans, 4))
    assert parse_csv((DATA / "counted.csv").read_text())[4].throughput == pytest.approx(200, rel=0.01)
    assert level.requests == 200
    assert level.throughput is not None and level.throughput.value > 1000


def test_a_sweep_that_turned_unstable_misses_levels_in_its_csv_but_not_in_its_export() -> None:
    assert list(parse_csv((DATA / "truncated.csv").read_text())) == [1]
    assert [item.value for item in read_export(DATA / "truncated.json")] == [1, 2]
    assert diagnose((DATA / "truncated.log").read_text()).outcome is Outcome.UNSTABLE


def test_binary_tensor_data_does_not_confuse_the_scan() -> None:
    with pytest.raises(UnicodeDecodeError):
        (DATA / "bytes.json").read_bytes().decode()
    (experiment,) = read_export(DATA / "bytes.json")
    assert len(experiment.spans) == 6


def test_tensors_that_look_like_the_format_do_not_confuse_the_scan(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    text = (
        '{"timestamp":1,"request_inputs":{}},"response_timestamps":[5],"response_outputs":[}],"window_boundaries":[1]}'
    )
    inputs = {"timestamp": 7, "window_boundaries": [3, 4], "text": text}
    request = {"timestamp": 10, "request_inputs": inputs, "response_timestamps": [20, 30], "response_outputs": [inputs]}
    lost = {"timestamp": 11, "sequence_id": 3, "request_inputs": {}, "response_timestamps": [], "response_outputs": []}
    experiment = {"experiment": {"mode": "concurrency", "value": 3}, "requests": [request, lost]}
    empty = {"experiment": {"mode": "request_rate", "value": 2.5}, "requests": [], "window_boundaries": []}
    data = {"experiments": [{**experiment, "window_boundaries": [5, 40]}, empty], "version": "2.51.0"}
    path.write_text(json.dumps(data, separators=(",", ":")))
    first, second = read_export(path)
    assert first.spans == ((10, 30),)
    assert (first.unanswered, first.boundaries) == (1, (5, 40))
    assert (second.mode, second.value, second.spans) == ("request_rate", 2.5, ())


def test_an_empty_export_says_that_a_nan_does_that() -> None:
    with pytest.raises(EmptyExport, match="NaN"):
        read_export(DATA / "nan.json")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.9, 0.999])
def test_a_cut_off_export_is_refused(tmp_path: Path, share: float) -> None:
    whole = (DATA / "steady.json").read_bytes()
    path = tmp_path / "profile.json"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckFailed, match="cut off"):
        read_export(path)


@pytest.mark.parametrize("text", ["", "nonsense\n", "Concurrency\n1\n"])
def test_a_csv_without_its_header_is_refused(text: str) -> None:
    with pytest.raises(CheckFailed, match="no header"):
        parse_csv(text)


@pytest.mark.parametrize("drop", [1, 5, 30])
def test_a_csv_cut_off_inside_a_row_is_refused(drop: int) -> None:
    with pytest.raises(CheckFailed, match="cut off"):
        parse_csv((DATA / "steady.csv").read_text()[:-drop])


@pytest.mark.parametrize(
    ("name", "outcome", "errors", "reason"),
    [
        ("failed", Outcome.FAILED, 2, "a request failed: in ensemble 'ens', one in fifty"),
        ("unstable", Outcome.UNSTABLE, 0, "Failed to obtain stable measurement within 3 measurement windows"),
        ("steady", Outcome.MISSING, 0, "left no results"),
    ],
)
def test_a_log_tells_why_there_are_no_results(name: str, outcome: Outcome, errors: int, reason: str) -> None:
    found = diagnose((DATA / f"{name}.log").read_text())
    assert (found.outcome, found.errors) == (outcome, errors)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("no_library", EnvironmentLacks, "libb64.so.0d"),
        ("no_server", EnvironmentLacks, "reaches no server"),
        ("unknown_model", CheckFailed, "'nope' is not found"),
        ("no_shape", CheckFailed, "give the shape"),
        ("wrong_option", CheckFailed, "--warmup-requests"),
    ],
)
def test_a_run_that_cannot_begin_says_what_to_do(name: str, kind: type[Exception], says: str) -> None:
    error = setup_error(tail(DATA / f"{name}.log"))
    assert type(error) is kind
    assert says in str(error)


def test_warnings_in_a_log_are_seen() -> None:
    assert not client_limited((DATA / "steady.log").read_text())
    assert client_limited("[WARNING] Perf Analyzer is not able to keep up with the desired load. The results …")
    assert knows_no_warmup("./perf_analyzer: unrecognized option '--warmup-request-count'\n")
    assert not knows_no_warmup((DATA / "wrong_option.log").read_text())
