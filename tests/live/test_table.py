"""Every source × backend: built, compared with its source, served by the embedded Triton.

``docs/sources-and-backends.md`` is this table; ``make table`` writes it anew. The test holds the committed page to what
it finds: the same cells filled, and the same reasons for the others.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from live.table_rows import BACKENDS, ROWS, Row
from live.vision_libraries import with_vision_libraries

from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.live import ServerChoice
from tritonforge.actions.validate import ModelValidation, validate
from tritonforge.actions.workspace import Workspace, open_workspace

pytestmark = [pytest.mark.live, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "sources-and-backends.md"
UPDATE = "TRITONFORGE_UPDATE_TABLE"
GROUPS = tuple(dict.fromkeys(row.group for row in ROWS))


@dataclass(frozen=True, slots=True)
class Cell:
    """A pair of source and backend: figures where it was built and served, else the reason why not."""

    max_abs: float | None = None
    cosine: float | None = None
    compared: int = 0
    why: str | None = None

    def text(self) -> str:
        if self.why is not None:
            return f"– ({self.why})"
        if self.max_abs is None:
            return "served"
        cosine = "" if self.cosine is None else f", cosine {min(self.cosine, 1):.6f}"
        return f"max abs {self.max_abs:.1e}{cosine}"


@pytest.fixture(scope="module")
def cells() -> Iterator[dict[tuple[str, str], Cell]]:
    """What the groups find, for the page."""
    found: dict[tuple[str, str], Cell] = {}
    yield found


def _missing(row: Row) -> list[str]:
    return [name for name in row.needs if importlib.util.find_spec(name) is None]


@pytest.mark.parametrize("group", GROUPS)
def test_every_pair_is_built_compared_and_served(
    group: str,
    runtime: object,
    tmp_path: Path,
    cells: dict[tuple[str, str], Cell],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if group == "names":
        with_vision_libraries(tmp_path / "libraries", monkeypatch)
    rows = [row for row in ROWS if row.group == group]
    missing = sorted({name for row in rows for name in _missing(row)})
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
    models: dict[str, Any] = {}
    for row in rows:
        folder = tmp_path / row.name
        folder.mkdir()
        made = _moved(row.make(folder), row.name)
        for backend in BACKENDS:
            if backend not in row.why:
                models[f"{row.name}--{backend}"] = {**made, "backend": backend, **_settings(row, backend)}
    spec = {"apiVersion": "tritonforge/v1", "name": "table", "models": models}
    (tmp_path / "forge.yaml").write_text(yaml.safe_dump(spec))
    first = _build(tmp_path)
    refused = {failure.model: failure.error for failure in first.failures if failure.error.hint and failure.log is None}
    broken = [f"{failure.model}: {failure.error}" for failure in first.failures if failure.model not in refused]
    assert not broken, "\n\n".join(broken)
    spec["models"] = {name: model for name, model in models.items() if name not in refused}
    (tmp_path / "forge.yaml").write_text(yaml.safe_dump(spec))
    outcome = _build(tmp_path)
    assert outcome.release is not None, [str(failure.error) for failure in outcome.failures]
    workspace = open_workspace(tmp_path / "forge.yaml")
    result = validate(workspace, choice=ServerChoice())
    wrong = {model.folder: [*model.problems, *_failed(model)] for model in result.models if not model.ok}
    assert not wrong
    by_folder = {model.folder: model for model in result.models}
    for row in rows:
        for backend in BACKENDS:
            name = f"{row.name}--{backend}"
            why = row.why.get(backend) or (str(refused[name].hint) if name in refused else None)
            cells[row.name, backend] = Cell(why=why) if why else _cell(workspace, outcome, name, by_folder[name])


def _settings(row: Row, backend: str) -> dict[str, Any]:
    """The Python backend runs modules as they are here: compiling each for the table would show nothing more."""
    plain = {"pytorch": {"compile_mode": "off"}} if backend == "python" and "torch" in row.needs else {}
    return {**plain, **row.settings.get(backend, {})}


def _moved(keys: dict[str, Any], folder: str) -> dict[str, Any]:
    """Paths of a row from the spec's folder."""

    def moved(value: Any) -> Any:
        return value if ":" in value else f"{folder}/{value}"

    made = {**keys, "source": moved(keys["source"])}
    for framework in ("torch", "tensorflow"):
        inner = dict(made.get(framework, {}))
        if "weights" in inner:
            inner["weights"] = moved(inner["weights"])
        if "code" in inner:
            inner["code"] = {path: moved(source) for path, source in inner["code"].items()}
        if inner:
            made[framework] = inner
    return made


def _build(folder: Path) -> PlatformOutcome:
    (outcome,) = build(open_workspace(folder / "forge.yaml"), BuildOptions(jobs=2)).platforms
    return outcome


def _failed(model: ModelValidation) -> list[str]:
    return [f"{case.case} over {case.protocol}: {case.reason}" for case in model.cases if not case.ok]


def _cell(workspace: Workspace, outcome: PlatformOutcome, name: str, live: ModelValidation) -> Cell:
    result = outcome.results.get(f"{name}/parity")
    compared = sum(case.compared for case in live.cases)
    if result is None:
        return Cell(compared=compared)
    proof = workspace.store.artifact(str(result.artifact))
    assert proof is not None
    return Cell(proof.metadata["max_abs"], proof.metadata["cosine"], compared)


def test_the_committed_page_is_what_was_found(cells: dict[tuple[str, str], Cell]) -> None:
    if len(cells) < len(ROWS) * len(BACKENDS):
        pytest.skip("not every group ran")
    assert sum(cell.why is None for cell in cells.values()) >= 40
    if os.environ.get(UPDATE):
        PAGE.write_text(page(cells))
    shown = json.loads(PAGE.read_text().split("<!-- cells: ")[1].split(" -->")[0])
    assert shown == _outline(cells), f"docs/{PAGE.name} is out of date: run `make table`"


def _outline(cells: dict[tuple[str, str], Cell]) -> dict[str, str | None]:
    return {f"{source} × {backend}": cell.why for (source, backend), cell in cells.items()}


def page(cells: dict[tuple[str, str], Cell]) -> str:
    """The page of the documentation."""
    filled = sum(cell.why is None for cell in cells.values())
    reasons = list(dict.fromkeys(cell.why for cell in cells.values() if cell.why))
    lines = [
        "# Sources and backends",
        "",
        "Every kind of source, as a small model, for every backend. A filled cell was built, compared with its source",
        "in the source's own framework at several batch sizes and dynamic shapes, loaded in the embedded Triton, and",
        "gave the same answers there over HTTP and gRPC. Its figures are the worst of the comparison: the largest",
        "absolute difference, and the smallest cosine. The Python column runs PyTorch modules without `torch.compile`.",
        "",
        f"{filled} of {len(cells)} cells are filled. Made by `make table`; a test holds the page to what it finds.",
        "",
        "| source | " + " | ".join(BACKENDS) + " |",
        "|---|" + "---|" * len(BACKENDS),
    ]
    for row in ROWS:
        texts = []
        for backend in BACKENDS:
            cell = cells[row.name, backend]
            texts.append(f"– [{reasons.index(cell.why) + 1}]" if cell.why else cell.text())
        lines.append(f"| {row.title} | " + " | ".join(texts) + " |")
    lines += ["", "Why cells are empty (`build/lines.py` refuses these with the same words):", ""]
    lines += [f"{number}. {reason}." for number, reason in enumerate(reasons, 1)]
    lines += ["", f"<!-- cells: {json.dumps(_outline(cells), ensure_ascii=False)} -->", ""]
    return "\n".join(lines)
