"""Running perf_analyzer, here a fake script, and what becomes of its failures."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import CheckFailed, EnvironmentLacks, Interrupted, UsageError
from tritonforge.measure import Outcome, PerfRun, perf_analyzer, run, version
from tritonforge.measure.export import EmptyExport
from tritonforge.measure.perf_run import PerfTls, command_line

from .conftest import DATA, alive


def perf_run(program: Path, how: str = "", **values: Any) -> PerfRun:
    env = {"FAKE": how, **values.pop("env", {})}
    return PerfRun(program, "add", "localhost:1", program.parent / "work", env=env, **values)


def calls(program: Path) -> list[list[str]]:
    return [json.loads(line) for line in (program.parent / "calls").read_text().splitlines()]


def test_every_level_asked_for_is_in_the_result_in_that_order(fake: Path) -> None:
    said: list[str] = []
    result = run(perf_run(fake, concurrency=(8, 1, 3), batch_size=2), said.append)
    assert [level.concurrency for level in result.levels] == [8, 1, 3]
    assert result.program_version == "9.9.9"
    level = result.level(3)
    assert level.outcome is Outcome.MEASURED
    assert (level.requests, len(level.windows), level.errors) == (3000, 10, 0)
    assert level.throughput is not None and level.throughput.value == pytest.approx(2000)
    assert level.p99_us is not None and level.p99_us.value == pytest.approx(598)
    assert any("concurrency 8" in line for line in said)
    with pytest.raises(CheckFailed, match="concurrency 5 was not measured"):
        result.level(5)


def test_tls_and_headers_are_on_the_command_line_alone(tmp_path: Path) -> None:
    tls = PerfTls(Path("/ca"), Path("/cert"), Path("/key"))
    asked = PerfRun(Path("/perf"), "m", "h:1", tmp_path, headers={"Authorization": "Bearer t0ken"}, tls=tls)
    words = " ".join(command_line(asked, 1, tmp_path))
    assert "-H authorization:Bearer t0ken --ssl-grpc-use-ssl true --ssl-grpc-root-certifications-file /ca" in words
    assert "--ssl-grpc-certificate-chain-file /cert --ssl-grpc-private-key-file /key" in words
    words = " ".join(command_line(dataclasses.replace(asked, protocol="http"), 1, tmp_path))
    assert "--ssl-https-verify-peer 1 --ssl-https-verify-host 2 --ssl-https-ca-certificates-file /ca" in words
    assert "--ssl-https-client-certificate-file /cert --ssl-https-private-key-file /key" in words
    one_file = dataclasses.replace(asked, tls=PerfTls(None, Path("/both"), None))
    assert "chain-file /both --ssl-grpc-private-key-file /both" in " ".join(command_line(one_file, 1, tmp_path))
    assert "t0ken" not in repr(asked) + str(asked.settings())
    assert "ssl" not in " ".join(command_line(dataclasses.replace(asked, tls=None), 1, tmp_path))


def test_the_command_line_says_what_the_run_says(tmp_path: Path) -> None:
    asked = PerfRun(
        Path("/pa"), "m", "h:1", tmp_path, version=4, protocol="http", batch_size=2, shapes={"IN": (3, -1), "B": ()},
        string_length=9, input_data=Path("/data.json"), percentile=99, extra_args=("-a",),
    )  # fmt: skip
    words = " ".join(command_line(asked, 6, tmp_path))
    for part in ("-m m", "-x 4", "-u h:1", "-i http", "-b 2", "--concurrency-range 6", "--input-data /data.json",
                 "--shape IN:3,-1", "--string-length 9", "--percentile 99", "-s 1000000", "-r 3"):  # fmt: skip
        assert part in words
    assert words.endswith(" -a")
    assert "--request-count 7" in " ".join(command_line(asked, 6, tmp_path, requests=7))
    stable = PerfRun(Path("/pa"), "m", "h:1", tmp_path, stability_percentage=5, max_trials=4)
    assert "-p 1000 -r 4 -s 5" in " ".join(command_line(stable, 1, tmp_path))


def test_windows_of_a_number_of_requests(fake: Path) -> None:
    result = run(perf_run(fake, measurement_request_count=50, windows=6))
    assert [window.requests for window in result.levels[0].windows] == [50] * 6
    assert "300" in calls(fake)[-1]


def test_a_model_with_big_tensors_is_measured_in_several_processes(fake: Path) -> None:
    asked = perf_run(fake, env={"FAKE_PAD": "20000"}, memory_limit_mb=60, windows=4)
    result = run(asked)
    assert len(calls(fake)) == 1 + 4
    assert result.levels[0].outcome is Outcome.MEASURED
    assert len(result.levels[0].windows) == 4
    assert "4 processes" in result.notes[0]


def test_too_little_memory_for_one_window_is_an_error_that_says_so(fake: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="--shared-memory"):
        run(perf_run(fake, env={"FAKE_PAD": "200000"}, memory_limit_mb=10))


def test_a_perf_analyzer_without_warmup_is_used_without_it(fake: Path) -> None:
    result = run(perf_run(fake, "no-warmup"))
    assert result.levels[0].outcome is Outcome.MEASURED
    assert "--warmup-request-count" not in calls(fake)[-1]
    assert "no --warmup-request-count" in result.notes[0]


def test_failed_requests_leave_a_level_with_its_errors_and_no_figures(fake: Path) -> None:
    result = run(perf_run(fake, f"log:{DATA / 'failed.log'}:2", concurrency=(1, 2, 3)))
    assert [level.outcome for level in result.levels] == [Outcome.MEASURED, Outcome.FAILED, Outcome.MEASURED]
    failed = result.level(2)
    assert (failed.errors, failed.throughput, failed.requests) == (2, None, 0)
    assert "one in fifty" in (failed.reason or "")
    assert any("one in fifty" in line for line in failed.log_tail)


def test_an_unstable_level_has_no_figures(fake: Path) -> None:
    (level,) = run(perf_run(fake, f"log:{DATA / 'unstable.log'}")).levels
    assert (level.outcome, level.throughput) == (Outcome.UNSTABLE, None)


@pytest.mark.parametrize("how", ["silent", "wrong-level"])
def test_exit_code_0_without_the_level_that_was_asked_for_is_an_error(fake: Path, how: str) -> None:
    with pytest.raises(CheckFailed, match="could not measure"):
        run(perf_run(fake, how))


def test_an_export_emptied_by_a_nan_is_an_error_that_says_so(fake: Path) -> None:
    with pytest.raises(EmptyExport, match="NaN"):
        run(perf_run(fake, "empty"))


def requests_asked_for(program: Path) -> list[int]:
    return [int(call[call.index("--request-count") + 1]) for call in calls(program) if "--request-count" in call]


def test_requests_that_were_over_before_the_counters_were_read_are_sent_again_and_more(fake: Path) -> None:
    said: list[str] = []
    (level,) = run(perf_run(fake, f"too-soon:100:{DATA / 'too_soon.log'}"), said.append).levels
    assert "concurrency 1: again, 32 requests: those before were over too soon" in said
    assert level.outcome is Outcome.MEASURED
    assert requests_asked_for(fake) == [8, 32, 128]
    with pytest.raises(CheckFailed, match="could not measure") as caught:
        run(perf_run(fake, f"too-soon:1000:{DATA / 'too_soon.log'}"))
    assert "before perf_analyzer had read its counters" in str(caught.value.found)
    assert requests_asked_for(fake) == [8, 32, 128, 8, 32, 128, 512]
    with pytest.raises(CheckFailed, match="could not measure"):
        run(perf_run(fake, f"too-soon:5000:{DATA / 'too_soon.log'}", concurrency=(600,)))
    assert requests_asked_for(fake)[7:] == [600, 600, 600, 600]


def test_a_number_of_requests_that_was_asked_for_is_sent_again_as_it_is(fake: Path) -> None:
    values = {"measurement_request_count": 2, "windows": 5, "concurrency": (20,)}
    with pytest.raises(CheckFailed, match="could not measure"):
        run(perf_run(fake, f"too-soon:21:{DATA / 'too_soon.log'}", **values))
    assert requests_asked_for(fake) == [20, 80, 20, 20, 20, 20]


def test_no_server_is_a_lack_of_the_environment(fake: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="reaches no server"):
        run(perf_run(fake, f"log:{DATA / 'no_server.log'}"))


def test_a_timeout_ends_the_whole_group_and_the_levels_that_follow(fake: Path) -> None:
    result = run(perf_run(fake, "hang", concurrency=(1, 2), timeout_s=1.5))
    assert [level.outcome for level in result.levels] == [Outcome.TIMEOUT, Outcome.TIMEOUT]
    assert "not tried" in (result.levels[1].reason or "")
    assert not any(alive(int(pid)) for pid in (fake.parent / "pids").read_text().split())


def test_a_probe_that_does_not_end_is_begun_anew(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perf_analyzer, "_PROBE_S", 1.5)
    said: list[str] = []
    (level,) = run(perf_run(fake, "hang-once"), said.append).levels
    assert level.outcome is Outcome.MEASURED
    assert "concurrency 1: again: perf_analyzer did not end within 1.5 s" in said
    assert not any(alive(int(pid)) for pid in (fake.parent / "pids").read_text().split())
    (fake.parent / "pids").unlink()
    (level,) = run(perf_run(fake, "hang", timeout_s=2.5)).levels
    assert level.outcome is Outcome.TIMEOUT
    assert "did not end within 2.5 s" in (level.reason or "")


def test_an_interrupt_ends_the_whole_group(fake: Path) -> None:
    pids = fake.parent / "pids"

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not pids.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(Interrupted):
        run(perf_run(fake, "hang", timeout_s=30))
    thread.join()
    assert not any(alive(int(pid)) for pid in pids.read_text().split())


def test_something_else_is_no_perf_analyzer(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match="cannot be started"):
        version(tmp_path / "absent")
    stub = tmp_path / "stub"
    stub.write_text("#!/bin/sh\nexit 0\n")
    with pytest.raises(EnvironmentLacks, match="chmod"):
        version(stub)
    stub.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="is no perf_analyzer"):
        version(stub)
    library = tmp_path / "library"
    library.write_text(f"#!/bin/sh\ncat {DATA / 'no_library.log'}; exit 127\n")
    library.chmod(0o755)
    with pytest.raises(EnvironmentLacks, match="LD_LIBRARY_PATH"):
        version(library)


@pytest.mark.parametrize(
    "values",
    [
        {"concurrency": ()},
        {"concurrency": (0,)},
        {"concurrency": (2, 2)},
        {"windows": 2},
        {"batch_size": 0},
        {"protocol": "rest"},
        {"protocol": "http", "streaming": True},
        {"measurement_request_count": 10, "stability_percentage": 5.0},
        {"measurement_request_count": 0},
    ],
)
def test_values_that_do_not_go_together_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        PerfRun(Path("/pa"), "m", "h:1", tmp_path, **values)


def test_settings_hold_no_environment_and_no_paths(fake: Path) -> None:
    asked = perf_run(fake, env={"TOKEN": "secret"}, input_data=Path("/somewhere/cases.json"))
    text = json.dumps(asked.settings())
    assert "secret" not in text and "/somewhere" not in text and "cases.json" in text
