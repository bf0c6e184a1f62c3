"""ONNX Runtime's optimisations are written once, in ONNX or its own format, and change no answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import making_onnx as making
import numpy as np
import onnx
import pytest
from onnx import helper

from steps.conftest import Run, golden_config, onnx_config
from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.store import LocalStore
from tritonforge.sources.onnx_file import operator_domains
from tritonforge.steps.registry import step

Import = Callable[..., Artifact]


def gelu_net() -> onnx.ModelProto:
    """A product and an exact GELU in five operators, which `extended` makes one of."""
    weight = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Div", ["h", "root"], ["d"]),
        helper.make_node("Erf", ["d"], ["e"]),
        helper.make_node("Add", ["e", "one"], ["p"]),
        helper.make_node("Mul", ["h", "p"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["y"]),
    ]
    values = {"w": weight, "root": np.float32(np.sqrt(2)), "one": np.float32(1), "half": np.float32(0.5)}
    weights = [making.constant(name, value) for name, value in values.items()]
    return making.model(nodes, [making.value("x", ["N", 8])], [making.value("y", ["N", 8])], weights)


def conv_net() -> onnx.ModelProto:
    """A convolution with ReLU, whose layout follows the processor at `all`."""
    weight = np.random.default_rng(0).standard_normal((16, 16, 3, 3)).astype(np.float32) / 12
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shape: list[int | str | None] = ["N", 16, 8, 8]
    return making.model(
        nodes, [making.value("x", shape)], [making.value("y", shape)], [making.constant("w", weight.astype(np.float32))]
    )


def read(store: LocalStore, made: Artifact) -> onnx.ModelProto:
    return onnx.load(store.blob(made.files["model.onnx"].sha256), format="protobuf", load_external_data=False)


@pytest.mark.parametrize("level", ["none", "basic", "extended", "all"])
@pytest.mark.parametrize("format_", ["onnx", "ort"])
@pytest.mark.parametrize("make", [gelu_net, conv_net])
def test_no_level_and_no_format_changes_an_answer(
    run: Run, import_onnx: Import, level: str, format_: str, make: Callable[[], onnx.ModelProto]
) -> None:
    source = import_onnx(make())
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    made = run("optimize-onnx", {"level": level, "format": format_}, inputs={"model": source})
    assert made.signature == source.signature
    assert made.metadata["made_by"].endswith(f"(optimised: {level})")
    parity = run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
    assert parity.metadata["max_abs"] < 1e-5


def test_extended_fuses_and_says_which_domains_it_needs(run: Run, import_onnx: Import, store: LocalStore) -> None:
    source = import_onnx(gelu_net())
    basic, extended = (
        run("optimize-onnx", {"level": level, "format": "onnx"}, inputs={"model": source})
        for level in ("basic", "extended")
    )
    assert operator_domains(read(store, basic)).keys() == {""}
    assert operator_domains(read(store, extended))["com.microsoft"] == {"Gelu"}
    assert set(basic.metadata["domains"]) == {""}
    assert set(extended.metadata["domains"]) == {"", "com.microsoft"}
    assert extended.metadata["opset"] == 17


def test_only_all_is_tied_to_the_processor() -> None:
    facets = {
        level: step("optimize-onnx").needs({"level": level, "format": "onnx"}, 0).facets
        for level in ("none", "basic", "extended", "all")
    }
    assert facets == {"none": (), "basic": (), "extended": (), "all": ("processor",)}


def test_ort_is_named_as_the_file_to_serve(run: Run, import_onnx: Import) -> None:
    made = run("optimize-onnx", {"level": "basic", "format": "ort"}, inputs={"model": import_onnx(gelu_net())})
    assert list(made.files) == ["model.ort"]
    assert made.metadata["file"] == "model.ort"


def test_equal_models_give_equal_files(run: Run, import_onnx: Import) -> None:
    # ONNX Runtime's own format holds a table in no fixed order: there the store keeps the first file that is made.
    source = import_onnx(gelu_net())
    first, second = (
        run("optimize-onnx", {"level": "all", "format": "onnx"}, inputs={"model": source}) for _ in range(2)
    )
    assert first.digest == second.digest


def test_external_data_stays_external_and_other_files_come_along(run: Run, tmp_path: Path) -> None:
    path = making.save_external(tmp_path / "src" / "net.onnx")
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\n")
    sources = {"model.onnx": path, "weights.bin": path.with_name("weights.bin"), "labels.txt": labels}
    source = run("import-onnx", onnx_config(), sources=sources)
    golden = run("golden", golden_config(format="onnx"), inputs={"model": source})
    for config, files in (
        ({"level": "basic", "format": "onnx"}, ["labels.txt", "model.onnx", "model.onnx.data"]),
        ({"level": "basic", "format": "ort"}, ["labels.txt", "model.ort"]),
    ):
        made: Any = run("optimize-onnx", config, inputs={"model": source})
        assert sorted(made.files) == files
        assert made.metadata["external"] == [name for name in files if name.endswith(".data")]
        run("parity", {"format": "onnx", "tolerance": None}, inputs={"model": made, "golden": golden})
