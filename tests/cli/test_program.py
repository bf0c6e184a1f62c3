"""The program itself: quick help, hints, one JSON object a command, completion."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import yaml
from making_onnx import batched_add, save

from cli.commands import PROGRAM, Workshop
from tritonforge.cli.main import _COMMANDS
from tritonforge.cli.output import emit_json

HEAVY = {
    "numpy",
    "onnx",
    "onnxruntime",
    "pydantic",
    "rich",
    "tritonclient",
    "jinja2",
    "yaml",
    "google.protobuf",
    "psutil",
}


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["frobnicate"], ["build", "--help"], ["serve", "--help"]])
def test_help_loads_no_framework(words: list[str]) -> None:
    code = (
        "import sys\nfrom tritonforge.cli.main import run\n"
        f"try: run({words!r})\nexcept SystemExit: pass\nprint('LOADED', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "tritonforge.cli.main" in loaded
    assert not HEAVY & loaded


def test_help_needs_little_beside_click() -> None:
    """``benchmarks/startup.py`` has the time; what is imported is what it comes from."""
    code = (
        "import sys, click\nbefore = set(sys.modules)\nfrom tritonforge.cli.main import run\n"
        "try: run(['--help'])\nexcept SystemExit: pass\nprint('LOADED', *set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    loaded = set(done.stdout.rpartition("LOADED ")[2].split())
    assert "tritonforge.errors" in loaded
    assert not loaded & {"pathlib", "shutil", "difflib", "traceback", "subprocess", "json", "importlib.metadata"}
    assert len(loaded) < 20, sorted(loaded)


@pytest.mark.parametrize(("columns", "widest"), [("60", 58), ("300", 108), ("0", 78), ("many", 78)])
def test_help_is_as_wide_as_the_terminal(workshop: Workshop, columns: str, widest: int) -> None:
    environment = {**workshop.environment, "COLUMNS": columns}
    done = subprocess.run([PROGRAM, "choose", "--help"], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert widest - 15 < max(map(len, done.stdout.splitlines())) <= widest


def test_help_names_every_command(workshop: Workshop) -> None:
    done = workshop.run("--help")
    assert done.code == 0
    assert [name for name in _COMMANDS if f"\n  {name} " not in done.out] == []


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_listed_command_exists(workshop: Workshop, name: str) -> None:
    done = workshop.run(name, "--help")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: tritonforge {name} ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["biuld"], "Did you mean 'build'?"),
        (["validat"], "Did you mean 'validate'?"),
        (["build", "--platfrom", "x"], "--platform"),
        (["cache", "lst"], "lst"),
        (["build", "--jobs", "0"], "0"),
        (["build", "--platform", "locl"], "did you mean 'local'?"),
        (["build", "--force-model", "god"], "did you mean 'good'?"),
        (["config", "show", "god"], "did you mean 'good'?"),
        (["release", "show", "ffff"], "no release begins with 'ffff'"),
        (["serve", "--server", "http://localhost:1"], "--server"),
        (["validate", "--server", "nobody"], "nobody"),
        (["validate", "--tritonserver", "a", "--container", "b"], "choose one of"),
        (["gate", "nothing"], "nothing"),
        (["build", "--overlay", "gone.yaml"], "gone.yaml"),
        (["plan", "--spec", "elsewhere"], "elsewhere"),
    ],
)
def test_wrong_usage_says_what_is_right(built: Workshop, words: list[str], says: str) -> None:
    done = built.run(*words)
    assert done.code == 2, done.err
    assert says in done.err
    assert done.out == ""
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["biuld"], ["build", "--platfrom", "x"], ["build", "--platform", "locl"]])
def test_wrong_usage_is_an_object_too(built: Workshop, words: list[str]) -> None:
    said = built.json(*words, code=2)
    assert (said["error"], said["exit_code"]) == ("UsageError", 2)
    assert said["message"]


def test_debug_shows_the_traceback_and_keeps_the_exit_code(workshop: Workshop) -> None:
    done = workshop.run("build", "--debug")
    assert done.code == 2
    assert "Traceback" in done.err
    assert "there is no forge.yaml" in done.err


@pytest.mark.parametrize(
    "words",
    [
        ["plan"],
        ["build"],
        ["build", "--force"],
        ["config", "show", "good"],
        ["release", "show"],
        ["release", "list"],
        ["runtime", "list"],
        ["cache", "list"],
        ["cache", "gc", "--dry-run"],
        ["cache", "gc"],
    ],
    ids=" ".join,
)
def test_json_is_exactly_one_object(built: Workshop, words: list[str]) -> None:
    assert isinstance(built.json(*words), dict)


def test_the_schema_is_json_and_describes_the_example(workshop: Workshop) -> None:
    done = workshop.run("spec", "schema")
    assert done.code == 0
    schema = json.loads(done.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert workshop.run("init").code == 0
    jsonschema.validate(yaml.safe_load((workshop.folder / "forge.yaml").read_text()), schema)


def test_init_writes_a_spec_that_builds(workshop: Workshop) -> None:
    save(workshop.folder / "my model.onnx", batched_add())
    spec = workshop.folder / "forge.yaml"
    shown = workshop.run("init", "--dry-run")
    assert (shown.code, spec.exists()) == (0, False)
    assert workshop.run("init").code == 0
    assert spec.read_text() == shown.out
    again = workshop.run("init")
    assert again.code == 2
    assert "--force" in again.err
    assert workshop.build()["new"] is True
    assert set(workshop.published()) == {"my-model"}


def test_init_makes_a_folder_that_is_not_there(workshop: Workshop) -> None:
    assert workshop.run("init", "deep/er").code == 0
    done = workshop.run("plan", "--spec", "deep/er")
    assert done.code == 2
    assert "model.onnx" in done.err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(workshop: Workshop, shell: str) -> None:
    environment = {**workshop.environment, "_TRITONFORGE_COMPLETE": f"{shell}_source"}
    script = subprocess.run([str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=60)
    assert "_TRITONFORGE_COMPLETE" in script.stdout
    if shell == "bash":
        environment |= {"_TRITONFORGE_COMPLETE": "bash_complete", "COMP_WORDS": "tritonforge va", "COMP_CWORD": "1"}
        words = subprocess.run([str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=60)
        assert words.stdout.split(",")[-1].strip() == "validate"


def test_output_into_a_closed_pipe_is_no_error(built: Workshop) -> None:
    command = f"'{PROGRAM}' spec schema | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_an_interrupted_command_says_so_and_goes_on_later(built: Workshop, number: int) -> None:
    # Waiting for the build lock is where a command can be interrupted at a moment that a test can choose.
    lock = built.folder / "build" / ".lock"
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"import fcntl,sys;f=open({str(lock)!r},'a');fcntl.flock(f,2);print(1,flush=True);sys.stdin.read()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        waiting = subprocess.Popen(
            [str(PROGRAM), "build"],
            cwd=built.folder,
            env={**os.environ, "TRITONFORGE_HOME": str(built.home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr is not None
        assert "waiting for" in waiting.stderr.readline()
        time.sleep(0.1)
        waiting.send_signal(number)
        _, said = waiting.communicate(timeout=20)
    finally:
        holder.kill()
        holder.wait()
    assert waiting.returncode == 5
    assert "interrupted" in said
    assert "Traceback" not in said
    assert built.build()["steps"]["built"] == 0


def test_no_wait_names_who_builds(built: Workshop) -> None:
    lock = built.folder / "build" / ".lock"
    with Path(lock).open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        done = built.run("build", "--no-wait")
    assert done.code == 3
    assert "is in use by" in done.err


@pytest.mark.parametrize("folder", ["2024", "on", "2024-13-01", "plain"])
def test_init_writes_names_that_yaml_reads_back(workshop: Workshop, folder: str) -> None:
    made = workshop.folder / folder
    made.mkdir()
    (made / "on.onnx").touch()
    assert workshop.run("init", folder).code == 0
    data = yaml.safe_load((made / "forge.yaml").read_text())
    assert (data["name"], list(data["models"]), data["models"]["on"]["source"]) == (folder, ["on"], "on.onnx")


@pytest.mark.parametrize(
    ("words", "code"), [(["plan", "--json"], 0), (["plan"], 0), (["plan", "--spec", "no", "--json"], 2)]
)
def test_a_reader_that_left_changes_no_exit_code(built: Workshop, words: list[str], code: int) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [PROGRAM, *words], cwd=built.folder, env=built.environment, stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert done.returncode == code, done.stderr


def test_json_has_null_for_what_is_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"a": [float("nan"), (float("inf"), 1.5)]})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [None, 1.5]]}
