"""Where a spec can be, how it is named, and names that are odd but allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from making_onnx import batched_add, model, save, value
from onnx import helper

from cli.commands import Workshop

OVERLAY = "retention: {releases: 3}\nmodels: {good: {max_batch_size: 2}}\n"


def test_the_folder_of_a_spec_is_as_good_as_its_file(built: Workshop, tmp_path: Path) -> None:
    before = built.current()
    ways = [built.folder, built.folder / "forge.yaml", Path("../copy/spec"), Path("../copy/spec/forge.yaml")]
    (tmp_path / "elsewhere").mkdir()
    for way in ways:
        done = built.json("build", "--spec", way, cwd=tmp_path / "elsewhere")
        assert done["platforms"][0]["release"] == before
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_spec_may_have_another_name(built: Workshop) -> None:
    (built.folder / "forge.yaml").rename(built.folder / "other.yml")
    assert built.run("plan").code == 2
    assert built.build("--spec", "other.yml")["release"] is not None


def test_overlays_lie_over_the_spec_in_their_order(built: Workshop) -> None:
    built.write(OVERLAY, "stage.yaml")
    built.write("models: {good: {max_batch_size: 3}}\n", "prod.yaml")
    plain = built.current()
    sizes = {}
    for overlays in ([], ["stage.yaml"], ["stage.yaml", "prod.yaml"]):
        built.build(*(word for name in overlays for word in ("--overlay", name)))
        sizes[len(overlays)] = built.published()["good"]["max_batch_size"]
    assert sizes == {0: 4, 1: 2, 2: 3}
    assert built.build()["release"] == plain


def test_an_error_in_an_overlay_names_the_overlay(built: Workshop) -> None:
    built.write("models: {good: {max_batch_sise: 2}}\n", "prod.yaml")
    done = built.run("build", "--overlay", "prod.yaml")
    assert done.code == 2
    assert "prod.yaml:1: models.good.max_batch_sise" in done.err


@pytest.mark.parametrize("name", ["ünïcode", "with space", "quo'te", "dollar$HOME", "semi;colon", "日本語"])
def test_paths_may_have_any_name(workshop: Workshop, name: str) -> None:
    folder = workshop.folder / name
    save(folder / f"{name}.onnx", batched_add())
    (folder / "forge.yaml").write_text(
        f'apiVersion: tritonforge/v1\nname: odd\nmodels:\n  a: {{source: "{name}.onnx"}}\n', encoding="utf-8"
    )
    assert workshop.build("--spec", folder)["new"] is True
    assert workshop.build("--spec", folder)["steps"]["built"] == 0
    assert (folder / "build/local/current/models/a/1/model.onnx").is_file()


@pytest.mark.parametrize("name", ["v1.2.model", "7seven", "a-b_c", "A" * 200])
def test_model_names_that_are_folders_are_taken(workshop: Workshop, name: str) -> None:
    save(workshop.folder / "a.onnx", batched_add())
    workshop.write(f'models:\n  "{name}": {{source: a.onnx}}\n')
    workshop.build()
    assert set(workshop.published()) == {name}


@pytest.mark.parametrize("name", ["../up", "a/b", ".hidden", "", "white space", "A" * 201, "-dash"])
def test_other_names_are_refused(workshop: Workshop, name: str) -> None:
    save(workshop.folder / "a.onnx", batched_add())
    workshop.write(f'models:\n  "{name}": {{source: a.onnx}}\n')
    done = workshop.run("build")
    assert done.code == 2
    assert "forge.yaml" in done.err
    assert not (workshop.folder / "build").exists()


def test_two_models_of_one_file_share_what_is_made(workshop: Workshop) -> None:
    save(workshop.folder / "a.onnx", batched_add())
    workshop.write("models:\n  one: {source: a.onnx, max_batch_size: 2}\n  two: {source: a.onnx, max_batch_size: 2}\n")
    workshop.build()
    models = workshop.published()
    assert models["one"]["artifact"] == models["two"]["artifact"]
    blobs = list((workshop.home / "store" / "blobs").glob("*/*"))
    assert sum(path.stat().st_size == (workshop.folder / "a.onnx").stat().st_size for path in blobs) == 1


def test_a_model_without_inputs_is_built(workshop: Workshop) -> None:
    node = helper.make_node("Constant", [], ["y"], value=helper.make_tensor("v", 1, [3], [1.0, 2.0, 3.0]))
    save(workshop.folder / "constant.onnx", model([node], [], [value("y", [3])]))
    workshop.write("models:\n  constant: {source: constant.onnx}\n")
    assert workshop.build()["new"] is True


def test_an_ensemble_of_one_model_and_one_over_it(workshop: Workshop) -> None:
    save(workshop.folder / "a.onnx", batched_add())
    workshop.write(
        "models:\n  a: {source: a.onnx, max_batch_size: 2}\n"
        "ensembles:\n"
        "  outer: {inputs: [x], outputs: [y], steps: [{model: inner}]}\n"
        "  inner: {inputs: [x], outputs: [y], steps: [{model: a}]}\n"
    )
    workshop.build()
    assert set(workshop.published()) == {"a", "inner", "outer"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no models"),
        ("models: {}\n", "no models"),
        ("models: [a]\n", "models"),
        ("models:\n  a:\n", "models.a"),
        ("models:\n  a: {source: }\n", "models.a.source"),
        ("models: {a: {source: a.onnx}, a: {source: a.onnx}}\n", "stands twice"),
        ("models:\n\ta: {}\n", "not valid YAML"),
        ("ensembles:\n  e: {inputs: [x], outputs: [y], steps: []}\n", "ensembles.e.steps"),
        ("models: {a: {source: a.onnx}}\nensembles: {a: {inputs: [x], outputs: [y], steps: [{model: a}]}}\n", "'a'"),
        ('models: {a: {source: "${SECRET}"}}\n', "not declared"),
        ("models: {a: {source: /etc/passwd}}\n", "models.a.source"),
        ("models: {a: {source: ../../outside.onnx}}\n", "models.a.source"),
        ("models: {a: {source: 5}}\n", "models.a.source"),
        ("models: {a: {source: a.onnx, files: {../up: a.onnx}}}\n", "models.a.files"),
        ("models: {a: {source: a.onnx, folder_files: {config.pbtxt: a.onnx}}}\n", "belongs to Triton"),
    ],
)
def test_a_wrong_spec_is_refused_with_its_place(workshop: Workshop, text: str, says: str) -> None:
    save(workshop.folder / "a.onnx", batched_add())
    workshop.write(text)
    done = workshop.run("build")
    assert done.code == 2, done.err
    assert "forge.yaml" in done.err
    assert says in done.err
    assert not (workshop.folder / "build/local/current").exists()
