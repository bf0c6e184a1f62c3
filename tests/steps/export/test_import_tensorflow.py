from __future__ import annotations

from pathlib import Path
from typing import Any

import making_tensorflow as making
import pytest

from steps.tensorflow_sources import ImportTensorFlow, import_tensorflow  # noqa: F401 - a fixture
from tritonforge.artifact.artifact import Artifact
from tritonforge.errors import CheckFailed


def tensors(made: Artifact) -> list[str]:
    assert made.signature is not None
    return [str(item) for item in (*made.signature.inputs, *made.signature.outputs)]


def function(folder: Path, call: Any, *shapes: list[Any]) -> Path:
    """A SavedModel of ``call`` with inputs a, b, …"""
    import tensorflow as tf

    inputs = [(name, tf.float32, shape) for name, shape in zip("ab", shapes, strict=False)]
    return making.save_signatures(folder, serving_default=(call, inputs))


def test_the_batch_and_dynamic_axes_are_found(import_tensorflow: ImportTensorFlow, tmp_path: Path) -> None:  # noqa: F811
    making.text().save(tmp_path / "m.keras")
    made = import_tensorflow("keras", tmp_path / "m.keras")
    assert made.format == "tensorflow"
    assert made.signature is not None and made.signature.batched
    assert tensors(made) == [
        "extra: FP32[batch,3]",
        "ids: INT32[batch,ids.1]",
        "probs: FP32[batch,3]",
        "score: FP32[batch,1]",
    ]
    assert sorted(made.files) == ["model/m.keras"]
    assert made.metadata["generation"]["ranges"] == {"ids": {"low": 0, "high": 19}}
    assert made.metadata["made_by"].startswith("tensorflow ")


@pytest.mark.parametrize(
    ("call", "shape", "found", "note"),
    [
        (lambda tf, a: a + 1, [None, 4], ["a: FP32[batch,4]", "y: FP32[batch,4]"], None),
        (lambda tf, a: a + 1, [3, 4], ["a: FP32[3,4]", "y: FP32[3,4]"], None),
        (lambda tf, a: a * 2, [None, None], ["a: FP32[batch,a.1]", "y: FP32[batch,a.1]"], None),
        (lambda tf, a: a[:, ::2], [None, None], ["a: FP32[batch,a.1]", "y: FP32[batch,?y.1]"], None),
        (
            lambda tf, a: tf.reduce_sum(a, axis=0),
            [None, 4],
            ["a: FP32[a.0,4]", "y: FP32[4]"],
            "axis 0 is no batch: y did not follow it",
        ),
        (
            lambda tf, a: tf.cumsum(a),
            [None, 4],
            ["a: FP32[a.0,4]", "y: FP32[a.0,4]"],
            "axis 0 is no batch: rows of y depend on each other",
        ),
        (
            lambda tf, a: tf.boolean_mask(a, a > 0),
            [8],
            ["a: FP32[8]", "y: FP32[?y.0]"],
            None,
        ),
    ],
)
def test_axes_are_proven_by_running(
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
    call: Any,
    shape: list[Any],
    found: list[str],
    note: str | None,
) -> None:
    import tensorflow as tf

    made = import_tensorflow("savedmodel", function(tmp_path / "m", lambda a: {"y": call(tf, a)}, shape))
    assert tensors(made) == found
    assert made.metadata["notes"] == ([] if note is None else [note])


def test_the_spec_names_axes_and_fixes_them(import_tensorflow: ImportTensorFlow, tmp_path: Path) -> None:  # noqa: F811
    model = function(tmp_path / "m", lambda a, b: {"y": a + b}, [None, None], [None, None])
    with pytest.raises(CheckFailed, match="cannot run the model") as raised:
        import_tensorflow("savedmodel", model)
    assert 'inputs: {a: "FP32[length]", b: "FP32[length]"}' in str(raised.value.hint)
    named = {name: {"type": "FP32[time]"} for name in "ab"}
    assert tensors(import_tensorflow("savedmodel", model, inputs=named)) == [
        "a: FP32[batch,time]",
        "b: FP32[batch,time]",
        "y: FP32[batch,time]",
    ]
    fixed = {name: {"type": "FP32[5]"} for name in "ab"}
    assert tensors(import_tensorflow("savedmodel", model, inputs=fixed))[2] == "y: FP32[batch,5]"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"inputs": {"x": {"type": "INT32[4]"}}}, "contradicts the model about 'x'"),
        ({"inputs": {"z": {"type": "FP32[4]"}}}, "no input 'z'"),
        ({"outputs": {"probs": {"type": "FP32[4]"}}}, "contradicts the model about 'probs'"),
        ({"outputs": {"other": {"type": "FP32[3]"}}}, "no output 'other'"),
    ],
)
def test_a_contradiction_is_refused(
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
    config: dict[str, Any],
    message: str,
) -> None:
    making.mlp().save(tmp_path / "m.keras")
    with pytest.raises(CheckFailed, match=message) as raised:
        import_tensorflow("keras", tmp_path / "m.keras", **config)
    assert raised.value.place is not None and raised.value.place.file == tmp_path / "m.keras"


def test_a_batch_that_cannot_be_is_refused(import_tensorflow: ImportTensorFlow, tmp_path: Path) -> None:  # noqa: F811
    with pytest.raises(CheckFailed, match="axis 0 is not dynamic in every input"):
        import_tensorflow("savedmodel", function(tmp_path / "m", lambda a: {"y": a}, [3, 4]), batched=True)
    summed = function(tmp_path / "s", lambda a: {"y": a[0]}, [None, 4])
    with pytest.raises(CheckFailed, match="does not follow the batch"):
        import_tensorflow("savedmodel", summed, batched=True)


def test_a_model_without_inputs_of_its_own_takes_those_of_the_spec(
    import_tensorflow: ImportTensorFlow,  # noqa: F811
    tmp_path: Path,
) -> None:
    import numpy as np

    code = making.write_nets(tmp_path / "code")
    model = making.nets()["Sub"]()
    model(np.ones((1, 4), np.float32), np.ones((1, 4), np.float32))
    model.save(tmp_path / "m.keras")
    declared = {name: {"type": "FP32[4]"} for name in "ab"}
    made = import_tensorflow(
        "keras", tmp_path / "m.keras", {"custom_objects": {"Sub": "nets:Sub"}}, code=code, inputs=declared
    )
    assert tensors(made) == [
        "a: FP32[batch,4]",
        "b: FP32[batch,4]",
        "sum: FP32[batch,3]",
        "difference: FP32[batch,4]",
    ]


def test_what_is_unsafe_never_reaches_the_store(import_tensorflow: ImportTensorFlow, tmp_path: Path) -> None:  # noqa: F811
    making.with_lambda().save(tmp_path / "m.keras")
    with pytest.raises(CheckFailed, match="layers that are Python code") as raised:
        import_tensorflow("keras", tmp_path / "m.keras")
    assert raised.value.place is not None and raised.value.place.file == tmp_path / "m.keras"
