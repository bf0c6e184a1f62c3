"""The README and the pages of docs/ say what is true: their commands run, their examples load, their links exist.

A fenced ``console`` block is run in one bash session a page: lines after ``$ `` are commands, the lines below them are
expected in this order in what is printed. ``…`` stands for any text; digests, durations and times may differ.
``# exit code N`` after a command says how it ends. A block ``yaml NAME`` or ``python NAME`` in a page that is run is
first written to that file. ``text`` blocks are not run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import pytest

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.cli.main import cli
from tritonforge.errors import EnvironmentLacks
from tritonforge.repository.config import ConfigRequest, generate
from tritonforge.spec.load import load
from tritonforge.spec.models import PlatformSpec
from tritonforge.spec.platform import resolve_platform
from tritonforge.spec.schema import reference_page
from tritonforge.triton.embedded.install import find, install

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUN = [ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("getting-started", "import", "stores"))]
SLOW = ("getting-started",)
TIMEOUT = 180
FENCE = re.compile(r"^```(\S+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
VARIES = re.compile(r"\b[0-9a-f]{8,64}\b|\d+\.\d s\b|\d{4}-\d\d-\d\dT[\d:]+Z")


@dataclass
class Block:
    """One fenced block: its language, the file that it names, its text, and its line in the page."""

    language: str
    file: str | None
    text: str
    line: int


@dataclass
class Command:
    """One command of a console block, with what is expected of it."""

    text: str
    line: int
    code: int = 0
    output: list[str] = field(default_factory=list)


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        yield Block(match.group(1), match.group(2), match.group(3), text.count("\n", 0, match.start()) + 1)


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            text, _, comment = line[2:].partition("    # exit code ")
            found.append(Command(text, number, int(comment or 0)))
        else:
            assert found, f"line {number} of a console block stands before its first command"
            found[-1].output.append(line)
    return found


def _pattern(line: str) -> re.Pattern[str]:
    """What an expected line matches: white space and what varies are loose, ``…`` is any text."""
    plain = VARIES.sub("…", " ".join(line.split()))
    return re.compile(".*".join(re.escape(part) for part in plain.split("…")))


def missing(expected: list[str], printed: str) -> str | None:
    """The first expected line that is not printed in its place."""
    lines = iter([" ".join(line.split()) for line in printed.splitlines()])
    for line in expected:
        if not line.strip() or line.strip() == "…" or set(line.strip()) == {"─"}:
            continue
        pattern = _pattern(line)
        if not any(pattern.fullmatch(candidate) for candidate in lines):
            return line
    return None


class Shell:
    """One bash for a page, so that folders and background jobs last from one block to the next."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.printed = folder / ".printed"
        self.printed.touch()
        with self.printed.open("ab") as stream:
            self.process = subprocess.Popen(
                ["bash"], stdin=subprocess.PIPE, stdout=stream, stderr=stream, cwd=folder, env=environment, text=True
            )
        self.folder = folder

    def run(self, command: Command) -> tuple[int, str]:
        """The exit code and what was printed; a job in the background is given time to print what is expected."""
        assert self.process.stdin is not None
        start = self.printed.stat().st_size
        mark = f"<<{start}:"
        self.process.stdin.write(f'{command.text}\nprintf "\\n{mark}%s>>%s\\n" $? "$PWD"\n')
        self.process.stdin.flush()
        end = time.monotonic() + TIMEOUT
        while True:
            printed = self.printed.read_bytes()[start:].decode(errors="replace")
            done = re.search(re.escape(mark) + r"(\d+)>>(.*)\n", printed)
            if done is not None:
                self.folder = Path(done.group(2))
                seen = printed.replace(done.group(0), "")
                if missing(command.output, seen) is None or not command.text.endswith(("&", "%1")):
                    return int(done.group(1)), seen
            if time.monotonic() > end or self.process.poll() is not None:
                pytest.fail(f"`{command.text}` did not come to its end:\n{printed}")
            time.sleep(0.02)

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("jobs -p | xargs -r kill\nwait\n")
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A home of its own for the store; the embedded Triton is this user's, so that it is not fetched again."""
    try:
        runtime = install()
    except EnvironmentLacks as error:
        pytest.skip(f"the embedded Triton cannot run here: {error}")
    home = tmp_path / "home"
    (home / "runtimes").mkdir(parents=True)
    (home / "runtimes" / runtime.root.name).symlink_to(runtime.root)
    assert find(home) is not None
    own = {"TRITONFORGE_HOME": str(home), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return {**os.environ, **own, "LC_ALL": "C.UTF-8"}


@pytest.mark.live
@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.name, marks=pytest.mark.slow if page.stem in SLOW else ()) for page in RUN]
)
def test_the_commands_of_a_page_do_what_it_says(page: Path, tmp_path: Path, environment: dict[str, str]) -> None:
    work = tmp_path / "work"
    work.mkdir()
    ignore = shutil.ignore_patterns("build", "__pycache__")
    shutil.copytree(ROOT / "repositories", work / "repositories", ignore=ignore)
    shell = Shell(work, environment)
    try:
        for block in blocks(page):
            if block.file is not None and page.name != "README.md":
                (shell.folder / block.file).write_text(block.text, encoding="utf-8")
            for command in commands(block) if block.language == "console" else ():
                code, printed = shell.run(command)
                where = f"{page.name}:{command.line}: {command.text}"
                assert code == command.code, f"{where}\nended with exit code {code}:\n{printed}"
                line = missing(command.output, printed)
                assert line is None, f"{where}\ndid not print\n  {line}\nbut\n{printed}"
    finally:
        shell.close()


def _examples() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}:{block.line}")
        for page in PAGES
        for block in blocks(page)
        if block.language == "yaml"
    ]


@pytest.mark.parametrize("block", _examples())
def test_every_yaml_example_loads(block: Block, tmp_path: Path) -> None:
    """A whole spec as it is; a part is laid over a spec that has nothing but a model."""
    (tmp_path / "templates").mkdir()
    spec = tmp_path / "forge.yaml"
    if "apiVersion:" in block.text:
        spec.write_text(block.text, encoding="utf-8")
        load(spec, environ={})
        return
    models = "" if re.search(r"^models:", block.text, re.MULTILINE) else "models: {mood: {source: mood.onnx}}\n"
    if block.file is not None:
        models = "models: {mood: {source: mood.onnx}}\ngates: {interactive: {model: mood, slo: {p95_ms: 1}}}\n"
    spec.write_text(f"apiVersion: tritonforge/v1\nname: example\n{models}", encoding="utf-8")
    part = tmp_path / "part.yaml"
    part.write_text(block.text, encoding="utf-8")
    if block.file == "broken.yaml":  # the page shows its error
        return
    load(spec, overlays=[part], environ={})


def test_the_template_example_writes_a_config(tmp_path: Path) -> None:
    page = ROOT / "docs" / "config.md"
    (example,) = [block.text for block in blocks(page) if block.language == "jinja"]
    (tmp_path / "ours.pbtxt.j2").write_text(example, encoding="utf-8")
    tensors = (Tensor("x", "FP32", ("batch", 4)),)
    request = ConfigRequest(
        "network",
        "onnxruntime",
        Signature(tensors, (Tensor("y", "FP32", ("batch", 2)),), batched=True),
        resolve_platform("local", PlatformSpec()),
        template="ours",
        template_folders=(tmp_path,),
    )
    text = generate(request).text
    assert "max_queue_delay_microseconds: 100" in text
    assert "response_cache" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path) if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}"


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def _subcommands(group: click.Command) -> dict[str, click.Command]:
    if not isinstance(group, click.Group):
        return {}
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def _options(command: click.Command) -> set[str]:
    return {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "Makefile"], ids=lambda page: page.name)
def test_every_command_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"(?:`|^\$ |^  )tritonforge ([a-z][^`\n]*)", text, re.MULTILINE)
    for words in named:
        command: click.Command = cli
        rest = words.split()
        while rest and (inner := _subcommands(command)):
            assert rest[0] in inner, f"{page.name} names `tritonforge {words}`"
            command = inner[rest.pop(0)]
        known = _options(command) | _options(cli)
        for word in rest:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{page.name} names `tritonforge {words}`"


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, command in _subcommands(cli).items():
        inner = list(_subcommands(command))
        row = re.search(rf"^\| `tritonforge {name}(?P<rest>[^|]*)\|", text, re.MULTILINE)
        assert row is not None, f"the README's table lacks `tritonforge {name}`"
        assert all(re.search(rf"\b{item}\b", row["rest"]) for item in inner), f"one of {inner} is missing"


def test_the_spec_reference_is_the_schemas() -> None:
    assert (ROOT / "docs" / "spec.md").read_text(encoding="utf-8") == reference_page(), "run `make docs`"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs" / "flow.svg"], ids=lambda page: page.name)
def test_no_page_names_what_is_only_here(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"(?<!\w)/(?:work|root|home|tmp)/", text), "a path of one machine"
    assert not re.search(r"\b\d+\.\d+\.\d+\.\d+\b", re.sub(r"127\.0\.0\.1|\b0\.0\.0\.0", "", text)), "an address"
    hosts = set(re.findall(r"https?://([^/\s)`'\"]+)", text))
    assert hosts <= {"github.com", "pypi.org", "www.w3.org", "HOST:PORT", "docs.nvidia.com"}, hosts
