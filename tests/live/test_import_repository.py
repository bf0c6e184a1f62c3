"""A repository that Triton serves is taken in, built, and served again: it gives the same answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from cli.commands import Workshop
from making_onnx import batched_add
from one_slot_site import Site

from tritonforge.triton import Client, Launch, start
from tritonforge.triton.embedded import Runtime

pytestmark = pytest.mark.live

LENGTHS = '''\
"""Each text as the numbers of its characters, and how many there are."""
import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
            x = np.array([[len(text), sum(text), min(text), max(text)] for text in texts], dtype=np.float32)
            answers.append(pb_utils.InferenceResponse([pb_utils.Tensor("x", x)]))
        return answers
'''
COMPLETES = '''\
"""Says itself what goes in and out: it stands in the repository without a config."""
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "x", "data_type": "TYPE_FP32", "dims": [4]})
        config.add_output({"name": "y", "data_type": "TYPE_FP32", "dims": [4]})
        config.set_max_batch_size(0)
        return config

    def execute(self, requests):
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor("y", -pb_utils.get_input_tensor_by_name(request, "x").as_numpy())]
            )
            for request in requests
        ]
'''
CONFIGS = {
    "plus": """
name: "plus"
platform: "onnxruntime_onnx"
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
output [ { name: "y" data_type: TYPE_FP32 dims: [ 4 ] } ]
version_policy { all {} }
dynamic_batching {}
""",
    "lengths": """
backend: "python"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "x" data_type: TYPE_FP32 dims: [ 4 ] } ]
""",
    "both": """
platform: "ensemble"
max_batch_size: 8
input [ { name: "TEXT" data_type: TYPE_STRING dims: [ 1 ] } ]
output [ { name: "OLD" data_type: TYPE_FP32 dims: [ 4 ] }, { name: "NEW" data_type: TYPE_FP32 dims: [ 4 ] } ]
ensemble_scheduling { step [
  { model_name: "lengths" model_version: -1 input_map { key: "TEXT" value: "TEXT" }
    output_map { key: "x" value: "numbers" } },
  { model_name: "plus" model_version: 2 input_map { key: "x" value: "numbers" }
    output_map { key: "y" value: "OLD" } },
  { model_name: "plus" model_version: 5 input_map { key: "x" value: "numbers" }
    output_map { key: "y" value: "NEW" } } ] }
""",
}


def make_repository(root: Path) -> Path:
    for name, text in CONFIGS.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.pbtxt").write_text(text)
    for number, amount in ((2, 1.0), (5, 100.0)):
        (root / "plus" / str(number)).mkdir()
        onnx.save(batched_add(amount), root / "plus" / str(number) / "model.onnx")
    (root / "both" / "1").mkdir()
    for name, code in (("lengths", LENGTHS), ("completes", COMPLETES)):
        (root / name / "1").mkdir(parents=True)
        (root / name / "1" / "model.py").write_text(code)
    return root


def answers(client: Client) -> dict[str, list[Any]]:
    """What the models answer to the same requests."""
    x = np.float32([[1, 2, 3, 4], [-1, 0.5, 0, 9]])
    text = np.array([["hello"], ["Grüße"]], dtype=object)
    asked = {
        "the newest": client.infer("plus", {"x": x}),
        "the older": client.infer("plus", {"x": x}, version="2"),
        "text": client.infer("lengths", {"TEXT": text}),
        "both": client.infer("both", {"TEXT": text}),
        "without a config": client.infer("completes", {"x": x[0]}),
    }
    return {f"{name}.{key}": array.tolist() for name, found in asked.items() for key, array in found.items()}


@dataclass(frozen=True)
class Story:
    """The original's answers, and the workshop that it was taken into."""

    before: dict[str, list[Any]]
    workshop: Workshop
    runtime: Runtime


@pytest.fixture(scope="module")
def story(runtime: Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    root = tmp_path_factory.mktemp("import")
    repository = make_repository(root / "repository")
    running = start(Launch(repository, log_path=root / "before.log"), runtime)
    try:
        with running.client() as client:
            before = answers(client)
    finally:
        running.stop(0)
    workshop = Workshop.make(root / "w", runtime.root.parent)
    said = workshop.json("import", repository)
    assert [model["name"] for model in said["models"]] == ["both", "completes", "lengths", "plus"]
    (workshop.folder / "case.json").write_text(
        '{"inputs": {"x": [1, 2, 3, 4]}, "outputs": {"y": [101, 102, 103, 104]}}'
    )
    say_more(workshop, "golden: {cases: [case.json]}")
    workshop.build()
    yield Story(before, workshop, runtime)


def test_the_original_answers_what_it_should(story: Story) -> None:
    assert story.before["the newest.y"] == [[101, 102, 103, 104], [99, 100.5, 100, 109]]
    assert story.before["the older.y"] == [[2, 3, 4, 5], [0, 1.5, 1, 10]]
    assert story.before["without a config.y"] == [-1, -2, -3, -4]
    assert story.before["both.OLD"] == [[6, 533, 102, 112], [8, 1024, 72, 196]]


def test_the_release_gives_the_same_answers(story: Story, tmp_path: Path) -> None:
    models = story.workshop.folder / "build" / "local" / "current" / "models"
    running = start(Launch(models.resolve(), log_path=tmp_path / "after.log"), story.runtime)
    try:
        with running.client() as client:
            assert answers(client) == story.before
            assert client.model_metadata("plus")["versions"] == ["2", "5"]
    finally:
        running.stop(0)


def test_validate_proves_what_was_taken_in(story: Story) -> None:
    said = story.workshop.json("validate", code=1)
    found = {(model["folder"], model["version"]): model for model in said["models"]}
    assert set(found) == {("both", 1), ("completes", 1), ("lengths", 1), ("plus", 2), ("plus", 5)}
    assert all(model["loaded"] and not model["problems"] for model in found.values())
    assert found["both", 1]["compared"] > 0, "its members are its reference"
    assert "no golden cases" in found["completes", 1]["note"]
    assert found["plus", 5]["ok"] and found["plus", 5]["compared"] > 0
    assert not found["plus", 2]["ok"], "the case is what version 5 answers"


def test_a_policy_laid_over_it_that_leaves_an_ensemble_without_its_member_is_told(story: Story, tmp_path: Path) -> None:
    made = story.workshop.copy(tmp_path / "copy")
    say_more(made, "config: {version_policy: {latest: {num_versions: 1}}}")
    outcome = made.build()
    assert outcome["warnings"] == ["both: its step plus, version 2, is not served by this release"]
    assert [entry["version"] for entry in made.published().values() if entry["folder"] == "plus"] == [5]


@pytest.mark.slow
def test_it_is_deployed_in_place_and_found_as_it_was_released(story: Story, tmp_path: Path) -> None:
    """The policy that was given is not the one of a folder that is changed in place: that is no drift."""
    made = story.workshop.copy(tmp_path / "copy")
    site = Site(made, story.runtime)
    (made.folder / "case.json").unlink()
    public = site.public
    spec = (made.folder / "forge.yaml").read_text().replace("    golden: {cases: [case.json]}\n", "")
    target = {
        "kind": "embedded",
        "strategy": "one-slot",
        "folder": "target",
        "ports": {"http": public.http, "grpc": public.grpc, "metrics": public.metrics},
    }
    (made.folder / "forge.yaml").write_text(spec + yaml.safe_dump({"targets": {"edge": target}}))
    made.build()
    try:
        assert site.deploy()["outcome"] == "deployed"
        with site.host.public() as connection, Client(connection) as client:
            assert answers(client) == story.before
        assert made.json("diff", "edge")["drift"] == []
    finally:
        site.remove()


def say_more(made: Workshop, line: str) -> None:
    """A further line of the model `plus`."""
    spec = (made.folder / "forge.yaml").read_text()
    assert spec.count("  plus:\n") == 1
    (made.folder / "forge.yaml").write_text(spec.replace("  plus:\n", f"  plus:\n    {line}\n"))
