"""The ``tritonforge`` program. Commands are imported when they are run, so that ``--help`` is quick."""

from __future__ import annotations

import gc
import importlib
import io
import os
import signal
import sys
from typing import Any, Final

import click

from tritonforge import __version__
from tritonforge.errors import ExitCode, ForgeError, InternalError, Interrupted, UsageError
from tritonforge.interruption import interruptible

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "init": ("tritonforge.cli.init:init", "Write a commented forge.yaml."),
    "import": ("tritonforge.cli.import_repository:import_", "Turn a Triton repository into a spec that builds it."),
    "inspect": ("tritonforge.cli.inspect:inspect", "Tell what a model is, what it costs, and who can serve it."),
    "convert": ("tritonforge.cli.convert:convert", "Convert a model without a spec, and compare it with its source."),
    "plan": ("tritonforge.cli.build:plan", "Show what a build would run, and why."),
    "build": ("tritonforge.cli.build:build", "Build the models and publish a release."),
    "choose": ("tritonforge.cli.choose:choose", "Measure the variants of a model, and choose the one to serve."),
    "replay": ("tritonforge.cli.replay:replay", "Run failing cases of a comparison again."),
    "config": ("tritonforge.cli.config:config", "Show a model's config.pbtxt and where each field came from."),
    "validate": ("tritonforge.cli.serve:validate", "Load a release in a live Triton and compare its answers."),
    "serve": ("tritonforge.cli.serve:serve", "Serve a release until interrupted."),
    "infer": ("tritonforge.cli.serve:infer", "Ask a served model: a file, a text, or JSON."),
    "gate": ("tritonforge.cli.gate:gate", "Measure with perf_analyzer and judge against the spec's bounds."),
    "report": ("tritonforge.cli.report:report", "Write the report of a release as HTML and JSON."),
    "deploy": ("tritonforge.cli.deploy:deploy", "Take a release to a target, behind its proof."),
    "rollback": ("tritonforge.cli.deploy:rollback", "Have a target serve an earlier release again."),
    "status": ("tritonforge.cli.target:status", "Show what runs on a target."),
    "history": ("tritonforge.cli.target:history", "List the rollouts of a target."),
    "diff": ("tritonforge.cli.target:diff", "Compare what runs on a target with what was released."),
    "logs": ("tritonforge.cli.target:logs", "Show the logs of a target."),
    "unlock": ("tritonforge.cli.target:unlock", "Show or break the lock of a target."),
    "release": ("tritonforge.cli.release:release", "Show releases, and take them elsewhere in one file."),
    "image": ("tritonforge.cli.image:image", "Write the folder of a serving image, and build it."),
    "runtime": ("tritonforge.cli.runtime:runtime", "Install or list the embedded Triton."),
    "cache": ("tritonforge.cli.cache:cache", "List the store, or free space in it."),
    "spec": ("tritonforge.cli.spec:spec", "Print the JSON Schema of forge.yaml."),
    "doctor": ("tritonforge.cli.doctor:doctor", "Tell what this machine, or a target, has and lacks."),
}


_WIDEST: Final = 110


class Commands(click.Group):
    """Knows every command's name and one line of help without importing it."""

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> click.Context:
        extra.setdefault("terminal_width", _width())
        return super().make_context(info_name, args, parent, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from tritonforge.errors import did_you_mean

            hint = did_you_mean(args[0], _COMMANDS)
            ctx.fail(f"there is no command '{args[0]}'." + (f" {hint[0].upper()}{hint[1:]}" if hint else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _width() -> int:
    """The columns of help: the terminal's, at most 110. click asks shutil, which loads three kinds of archives."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns) > 0:
        return max(50, min(int(columns), _WIDEST) - 2)
    try:
        found = os.get_terminal_size(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1).columns
    except (AttributeError, ValueError, OSError):
        found = 0
    return max(50, min(found or 80, _WIDEST) - 2)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tritonforge")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def cli(debug: bool) -> None:
    """From trained models to a proven, served NVIDIA Triton repository.

    The spec is forge.yaml in this folder unless --spec names another. Exit codes: 0 good, 1 what was checked is bad,
    2 wrong usage or spec, 3 this machine lacks something, 4 inconclusive, 5 interrupted, 70 a defect of tritonforge.

    Completion: eval "$(_TRITONFORGE_COMPLETE=bash_source tritonforge)" (or zsh_source, fish_source).
    """


def main() -> None:
    """Run the program; leaves with the exit code of what happened."""
    # A spec of many models is many objects that all stay: looking through them again and again finds no garbage.
    gc.set_threshold(400_000, 20, 20)
    _outlive_reader()
    try:
        run(sys.argv[1:])
    finally:
        # What happened is decided: a signal while Python shuts down would only replace the exit code.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


class _Output(io.FileIO):
    """A pipe whose reader may leave: what is written then goes nowhere, and the exit code stays the result's."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(memoryview(data).cast("B"))


def _outlive_reader() -> None:
    if sys.stdout is None or sys.stdout.isatty():
        return
    before = sys.stdout
    raw = _Output(before.fileno(), "wb", closefd=False)
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(raw), encoding=before.encoding, errors=before.errors)


def run(argv: list[str]) -> None:
    """Run one command line; always ends with SystemExit."""
    debug = "--debug" in argv
    if debug and argv and argv[0] != "--debug":
        # One flag, wherever it is written.
        argv = ["--debug", *[item for item in argv if item != "--debug"]]
    as_json = "--json" in argv
    try:
        with interruptible():
            code = cli.main(argv, prog_name="tritonforge", standalone_mode=False)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except click.ClickException as error:
        if as_json:
            _emit(UsageError(error.format_message()))
        error.show()
        sys.exit(int(ExitCode.USAGE))
    except (click.Abort, KeyboardInterrupt):
        if as_json:
            _emit(Interrupted("interrupted", hint="run the command again to go on"))
        click.echo("interrupted: run the command again to go on", err=True)
        sys.exit(int(ExitCode.INTERRUPTED))
    except ForgeError as error:
        if as_json:
            _emit(error)
        if debug:
            _show_traceback()
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
        sys.exit(int(error.exit_code))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(int(ExitCode.OK))
    except Exception as error:
        if as_json:
            _emit(InternalError(f"{type(error).__name__}: {error}"))
        if debug:
            _show_traceback()
        click.echo(
            f"tritonforge itself failed: {type(error).__name__}: {error}\n"
            "  hint: run the command again with --debug and report what it prints",
            err=True,
        )
        sys.exit(int(ExitCode.INTERNAL))
    sys.exit(code if isinstance(code, int) else 0)


def _show_traceback() -> None:
    import traceback

    traceback.print_exc()


def _emit(error: ForgeError) -> None:
    """The one object of ``--json``, where a command ended before it wrote its own."""
    import json

    click.echo(json.dumps(error.to_json(), ensure_ascii=False))


if __name__ == "__main__":
    main()
