"""A source that cannot be taken ends in one clear error with the right exit code, through the real program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli.commands import Workshop, errors_said

torch = pytest.importorskip("torch")

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, hidden=8):
        super().__init__()
        self.first = nn.Linear(4, hidden)

    def forward(self, x):
        return self.first(x)


class Branching(Net):
    def forward(self, x):
        if x.sum() > 0:
            return self.first(x)
        return -self.first(x) * 2
"""
MODULE = "torch: {module: 'net:Net', code: {net.py: net.py}}"
X = "inputs: {x: 'FP32[4]'}"


def _net(folder: Path) -> type:
    space: dict[str, object] = {"__name__": "net"}
    (folder / "net.py").write_text(NET)
    exec(compile(NET, "net.py", "exec"), space)
    return space["Net"]  # type: ignore[return-value]


def weights(folder: Path) -> None:
    torch.save(_net(folder)().state_dict(), folder / "weights.pt")


def other_weights(folder: Path) -> None:
    state = _net(folder)().state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, folder / "weights.pt")


def pickled(folder: Path) -> None:
    _net(folder)
    torch.save(torch.nn.Sequential(torch.nn.Linear(4, 2)), folder / "whole.pt")


def two_signatures(folder: Path) -> None:
    tf = pytest.importorskip("tensorflow")

    class Two(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def doubled(self, x: object) -> object:
            return x * 2.0  # type: ignore[operator]

        @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32)])
        def squared(self, x: object) -> object:
            return x * x  # type: ignore[operator]

    made = Two()
    tf.saved_model.save(made, str(folder / "saved"), signatures={"doubled": made.doubled, "squared": made.squared})


def unknown_task(folder: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=20)
    transformers.T5ForConditionalGeneration(config).save_pretrained(folder / "model")


def unknown_operator(folder: Path) -> None:
    import making_onnx as making
    from onnx import helper

    made = making.batched_add()
    made.graph.node[0].domain = "com.nobody"
    made.graph.node[0].op_type = "Mystery"
    made.opset_import.append(helper.make_opsetid("com.nobody", 1))
    making.save(folder / "net.onnx", made)


def no_openvino_operator(folder: Path) -> None:
    import making_onnx as making
    from onnx import helper

    nodes = [
        helper.make_node("StringNormalizer", ["texts"], ["small"]),
        helper.make_node("Shape", ["small"], ["size"]),
        helper.make_node("Cast", ["size"], ["number"], to=making.FLOAT),
        helper.make_node("Add", ["x", "number"], ["y"]),
    ]
    texts = helper.make_tensor("texts", making.STRING, [2], [b"a", b"b"])
    inputs, outputs = [making.value("x", ["N", 4])], [making.value("y", ["N", 4])]
    making.save(folder / "net.onnx", making.model(nodes, inputs, outputs, [texts]))


@dataclass(frozen=True)
class Bad:
    """A model, how its source is made, the exit code, and what the error says."""

    keys: str
    code: int
    says: tuple[str, ...]
    prepare: Callable[[Path], object] = weights


CASES = {
    "a pickle without allowance": Bad(
        f"{{source: whole.pt, {X}}}",
        1,
        ("whole.pt is a pickle", "torch.nn.modules", "allow_pickle: true", "state_dict"),
        pickled,
    ),
    "a state dict alone": Bad(f"{{source: weights.pt, {X}}}", 2, ("a state dict alone is no model", "torch: {module")),
    "a state dict that does not fit": Bad(
        f"{{source: weights.pt, {MODULE}, {X}}}",
        1,
        ("does not fit the module", "missing (2): first.weight, first.bias", "begins with 'module.'"),
        other_weights,
    ),
    "inputs that nobody stated": Bad(f"{{source: weights.pt, {MODULE}}}", 1, ("`inputs: {", "forward(x)")),
    "mismatched example inputs": Bad(
        f"{{source: weights.pt, {MODULE}, inputs: {{x: 'FP32[5]'}}}}", 1, ("[2, 5]", "net.py, line 12")
    ),
    "control flow that depends on data": Bad(
        f"{{source: weights.pt, {MODULE.replace('net:Net', 'net:Branching')}, {X}}}",
        1,
        ("cannot be exported to ONNX", "depends on data", "net.py:17", "method: script"),
    ),
    "control flow under trace": Bad(
        f"{{source: weights.pt, {MODULE.replace('net:Net', 'net:Branching')}, {X}, backend: pytorch, "
        "pytorch: {method: trace}}",
        1,
        ("net.py:17", "depends on a tensor"),
    ),
    "several signatures": Bad("{source: saved}", 1, ("doubled", "squared", "signature"), two_signatures),
    "an unknown task": Bad("{source: model}", 1, ("task", "feature-extraction", "text-generation"), unknown_task),
    "an operator that nothing runs": Bad("{source: net.onnx}", 1, ("com.nobody", "Mystery"), unknown_operator),
    "an operator that the backend lacks": Bad(
        "{source: net.onnx, backend: openvino}", 1, ("lacks operators", "StringNormalizer"), no_openvino_operator
    ),
}


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop.make(tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_a_bad_source_gives_one_clear_error(name: str, shop: Workshop) -> None:
    case = CASES[name]
    case.prepare(shop.folder)
    shop.write(f"models:\n  bad: {case.keys}\n")
    done = shop.run("build", timeout=240)
    assert done.code == case.code, done.err
    assert errors_said(done.err) == 1, done.err
    for text in case.says:
        assert text in done.err
    assert "Traceback" not in done.err
    assert shop.current() is None


def test_a_hub_id_while_offline_says_what_to_do(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(shop.home / "hub"))
    shop.write("models:\n  bad: {source: 'hub:nobody/nothing'}\n")
    done = shop.run("build")
    assert done.code == 3, done.err
    assert "nobody/nothing" in done.err
    assert "HF_HUB_OFFLINE" in done.err
