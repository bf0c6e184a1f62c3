"""ONNX's own models, built, loaded and asked: what ONNX Runtime answers as expected, the embedded Triton answers too.

``onnx_corpus.yaml`` has every exception with its reason; a row that is not needed any more fails the test as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from live.onnx_corpus import CorpusModel, DataSet, light_networks, node_models, write_inputs

from tritonforge.actions.build import BuildOptions, PlatformOutcome, build
from tritonforge.actions.live import LiveServer, ServerChoice, open_server
from tritonforge.actions.loading import load_all
from tritonforge.actions.validate import validate_entry
from tritonforge.actions.workspace import open_workspace
from tritonforge.errors import ForgeError
from tritonforge.repository.release import Release
from tritonforge.triton.embedded import Runtime

pytestmark = [pytest.mark.live, pytest.mark.slow]

EXCEPTIONS = Path(__file__).with_name("onnx_corpus.yaml")
NODE_PARTS = 8
"""Each part is a spec, a build and a server of some 175 models; each model is a process of 30 MB there."""
PARTS = (*(f"nodes-{number}" for number in range(NODE_PARTS)), "light")
IN_CI = ("nodes-2", "light")
SERVER = {
    # The configs are complete, so that nothing is left for the server to complete; and it need not look.
    "options": {"disable-auto-complete-config": True},
    "model_load_threads": 4,
    "readiness": {"exit_timeout_s": 1},
}


@dataclass(slots=True)
class Tally:
    """What became of the corpus: models of each part, and what was said of those that did not answer."""

    parts: dict[str, int] = field(default_factory=dict)
    data_sets: int = 0
    wrong: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def corpus() -> dict[str, list[CorpusModel]]:
    """The models of every part that ONNX Runtime itself answers as expected."""
    nodes = [model for model in node_models() if model.runs()]
    made = {f"nodes-{number}": nodes[number::NODE_PARTS] for number in range(NODE_PARTS)}
    return {**made, "light": [model for model in light_networks() if model.runs()]}


@pytest.fixture(scope="module")
def tally() -> Iterator[Tally]:
    found = Tally()
    yield found
    total, wrong = sum(found.parts.values()), len(found.wrong)
    if total:
        print(f"\n{total - wrong} of {total} models answer as expected ({1 - wrong / total:.2%})")


# CI goes through two parts, `make corpus` through all: each takes minutes.
@pytest.mark.parametrize(
    "part", [part if part in IN_CI else pytest.param(part, marks=pytest.mark.exhaustive) for part in PARTS]
)
def test_what_onnx_runtime_answers_is_built_loaded_and_answered(
    part: str,
    runtime: Runtime,
    corpus: dict[str, list[CorpusModel]],
    tally: Tally,
    tmp_path: Path,
    home: Path,
) -> None:
    home.mkdir()
    (home / "runtimes").symlink_to(runtime.root.parent)
    models = {model.name: model for model in corpus[part]}
    wrong = {}
    spec: dict[str, Any] = {"apiVersion": "tritonforge/v1", "name": "onnx-corpus", "server": SERVER, "models": {}}
    for name, model in models.items():
        (tmp_path / f"{name}.onnx").write_bytes(model.content)
        entry: dict[str, Any] = {"source": f"{name}.onnx"}
        if write_inputs(tmp_path / "inputs" / name, model):
            entry["golden"] = {"generated": False, "inputs": [f"inputs/{name}/*.npz"]}
        spec["models"][name] = entry
    outcome = _build(tmp_path, spec)
    for failure in outcome.failures:
        wrong[failure.model] = str(failure.error)
        del spec["models"][failure.model]
    if outcome.failures:
        outcome = _build(tmp_path, spec)
    assert outcome.release is not None, [str(failure.error) for failure in outcome.failures]
    wrong.update(_ask_all(tmp_path, outcome.release, {name: models[name] for name in spec["models"]}))
    tally.parts[part] = len(models)
    tally.data_sets += sum(len(model.sets) for model in models.values())
    tally.wrong.update(wrong)
    print(f"{part}: {len(models) - len(wrong)} of {len(models)} models answer as expected", flush=True)
    for name, said in wrong.items():
        print(f"  {name}: {' '.join(said.split())[:240]}", flush=True)
    rows = yaml.safe_load(EXCEPTIONS.read_text())
    unexplained = {name: said for name, said in wrong.items() if _row(rows, name, said) is None}
    assert not unexplained, "\n\n".join(f"{name}: {said}" for name, said in unexplained.items())
    needless = [name for row in rows for name in row["models"] if name in models and name not in wrong]
    assert not needless, "these answer as expected, and need no row any more"


def test_at_least_95_percent_answer_and_each_of_the_rest_has_its_reason(
    corpus: dict[str, list[CorpusModel]], tally: Tally
) -> None:
    if tally.parts.keys() != set(PARTS):
        pytest.skip("not every part ran")
    rows = yaml.safe_load(EXCEPTIONS.read_text())
    total = sum(tally.parts.values())
    share = 1 - len(tally.wrong) / total
    reasons = Counter(row["why"] for name in tally.wrong for row in rows if name in row["models"])
    print(f"{total} models with {tally.data_sets} data sets; {share:.2%} answer as expected over HTTP and gRPC")
    for why, count in reasons.most_common():
        print(f"  {count} do not: {why}")
    assert total > 1300
    assert tally.parts["light"] == 9
    assert share >= 0.95
    listed = [name for row in rows for name in row["models"]]
    assert len(listed) == len(set(listed)), "a model has one reason"
    assert set(listed) == tally.wrong.keys()


def _build(folder: Path, spec: Mapping[str, Any]) -> PlatformOutcome:
    (folder / "forge.yaml").write_text(yaml.safe_dump(spec))
    (outcome,) = build(open_workspace(folder / "forge.yaml"), BuildOptions()).platforms
    return outcome


def _row(rows: list[dict[str, Any]], name: str, said: str) -> dict[str, Any] | None:
    """The reason for which a model does not answer, if what was said is what the row expects."""
    return next((row for row in rows if name in row["models"] and row["said"] in said), None)


def _ask_all(folder: Path, release: Release, models: Mapping[str, CorpusModel]) -> dict[str, str]:
    """What is wrong with the models of a release on the embedded server: nothing of those that are not named."""
    entries = {entry["name"]: entry for entry in release.models()}
    assert entries.keys() == models.keys()
    wrong = {}
    with open_server(open_workspace(folder / "forge.yaml"), release, ServerChoice(), explicit=True) as server:
        loaded = load_all(release, server, lambda text: None)
        for name, model in models.items():
            # The product's own proof: what is served is what was published, and the source's answers come back.
            proven = validate_entry(release, entries[name], server, loaded[name])
            if not proven.ok:
                wrong[name] = "; ".join(
                    [*proven.problems, *(f"{case.case}: {case.reason}" for case in proven.cases if not case.ok)]
                )
                continue
            assert len(proven.cases) == 2 * len(model.sets)
            try:
                for wanted in model.sets:
                    for protocol in ("http", "grpc"):
                        _ask(server, entries[name], model, wanted, protocol)
            except (AssertionError, TypeError, ForgeError) as error:
                wrong[name] = str(error)
    return wrong


def _ask(server: LiveServer, entry: Mapping[str, Any], model: CorpusModel, wanted: DataSet, protocol: Any) -> None:
    """Hold an answer to what onnx expects. A scalar is one element there: Triton's config has no rank 0."""
    signature = entry["signature"]
    types = {item["name"]: item["datatype"] for item in (*signature["inputs"], *signature["outputs"])}
    answers = server.client.infer(
        entry["folder"],
        {name: value if value.shape else value.reshape(1) for name, value in wanted.arrays.items()},
        protocol=protocol,
        datatypes={name: types[name] for name in wanted.inputs},
    )
    found = []
    for item, expected in zip(signature["outputs"], wanted.outputs, strict=True):
        value = answers[item["name"]]
        if item["datatype"] == "BYTES":
            value = np.array([text.decode() for text in value.reshape(-1)], dtype=object).reshape(value.shape)
        found.append(value.reshape(()) if np.shape(expected) == () and value.shape == (1,) else value)
    model.compare(found, wanted)
