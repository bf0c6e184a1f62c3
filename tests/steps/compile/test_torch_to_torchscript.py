"""``torch-to-torchscript`` traces what it can, scripts the rest, and keeps no trace that burned something in."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tritonforge.artifact.artifact import Artifact
from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.artifact.store import LocalStore
from tritonforge.errors import CheckFailed
from tritonforge.runners.runner import open_runner

from .torch_sources import INPUTS, NET, OUTPUTS, module_source, torchscript_source

torch = pytest.importorskip("torch", reason="torch is not installed")

Run = Callable[..., Artifact]


def config(method: str = "auto", *, freeze: bool = True, optimize: bool = False) -> dict[str, Any]:
    return {"method": method, "freeze": freeze, "optimize": optimize}


def answers(store: LocalStore, artifact: Artifact, folder: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    for path in artifact.files:
        store.place(artifact, path, folder / path)
    return open_runner(artifact, folder).run(inputs)


def eager(name: str, inputs: dict[str, Any]) -> list[Any]:
    space: dict[str, Any] = {}
    exec(compile(NET, "net.py", "exec"), space)
    with torch.inference_mode():
        found = space[name]()(*[torch.from_numpy(value) for value in inputs.values()])
    return [value.numpy() for value in (found.values() if isinstance(found, dict) else found)]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("Plain", "traced: no control flow depends on data"),
        ("Named", "traced: assert at net.py:18 depends on a tensor, the same way for all values and sizes"),
        ("Branch", "scripted: if at net.py:25 depends on a tensor"),
        ("Size", "scripted: a conversion at net.py:32 depends on a tensor"),
    ],
)
def test_auto_says_what_it_did_and_why(run: Run, store: LocalStore, tmp_path: Any, name: str, how: str) -> None:
    made = run("torch-to-torchscript", config(), inputs={"model": module_source(store, name)})
    assert made.metadata["notes"][-1].startswith(how)
    assert made.format == "torchscript"
    assert [tensor.name for tensor in made.signature.inputs] == ["x", "mask"]
    rng = np.random.default_rng(0)
    for rows in (1, 5):
        for sign in (1, -1):
            inputs = {
                "x": sign * rng.random((rows, 4), dtype=np.float32) * 9,
                "mask": rng.random((rows, 3), dtype=np.float32),
            }
            found = answers(store, made, tmp_path / f"{rows}{sign}", inputs)
            for value, expected in zip(found.values(), eager(name, inputs), strict=True):
                np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "line", "what"),
    [("Branch", 25, "if at net.py:25"), ("Size", 32, "a conversion at net.py:32"), ("Stubborn", 38, "net.py:38")],
)
def test_a_trace_that_burned_something_in_is_refused_at_the_users_line(
    run: Run, store: LocalStore, name: str, line: int, what: str
) -> None:
    with pytest.raises(CheckFailed, match="dynamic control flow under trace") as caught:
        run("torch-to-torchscript", config("trace"), inputs={"model": module_source(store, name)})
    assert what in caught.value.message
    assert caught.value.place is not None and caught.value.place.line == line
    assert "method: script" in str(caught.value.hint)


def test_what_can_be_neither_traced_nor_scripted_is_sent_to_the_python_backend(run: Run, store: LocalStore) -> None:
    with pytest.raises(CheckFailed, match="cannot be scripted") as caught:
        run("torch-to-torchscript", config(), inputs={"model": module_source(store, "Stubborn")})
    assert "Comprehension ifs" in str(caught.value.found) and "net.py" in str(caught.value.found)
    assert "`backend: python`" in str(caught.value.hint)
    assert "a trace would be wrong" in caught.value.details[0]


def test_equal_modules_give_equal_bytes_whatever_the_process_did_before(run: Run, store: LocalStore) -> None:
    source = module_source(store, "Plain")
    first = run("torch-to-torchscript", config(), inputs={"model": source})
    run("torch-to-torchscript", config(), inputs={"model": module_source(store, "Branch")})
    again = run("torch-to-torchscript", config(), inputs={"model": source})
    assert again.digest == first.digest


def test_torchscript_is_taken_as_it_is_and_optimised_where_that_is_asked_for(run: Run, store: LocalStore) -> None:
    space: dict[str, Any] = {}
    exec(compile(NET, "net.py", "exec"), space)
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(space["Plain"]().eval(), (torch.zeros(2, 4), torch.zeros(2, 3))), buffer)
    made = run(
        "torch-to-torchscript",
        config(freeze=True, optimize=True),
        inputs={"model": torchscript_source(store, buffer.getvalue())},
    )
    assert "taken as it is, frozen, optimised for inference" in made.metadata["made_by"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        ((Tensor("x", "BF16", ("batch", 4)), INPUTS[1]), OUTPUTS, "no type BF16, which the input 'x' is"),
        (INPUTS, (Tensor("y", "UINT32", ("batch", 3)), OUTPUTS[1]), "no type UINT32, which the output 'y' is"),
        ((Tensor("x", "BYTES", ("batch", 4)), INPUTS[1]), OUTPUTS, "texts in one dimension only"),
        ((Tensor("x", "FP32", ("batch", 4), optional=True), INPUTS[1]), OUTPUTS, "needs every input"),
        (
            (Tensor("x__1", "FP32", ("batch", 4)), Tensor("m.k__0", "FP32", ("batch", 3))),
            OUTPUTS,
            "put the inputs else",
        ),
        (INPUTS, (Tensor("y__1", "FP32", ("batch", 3)), Tensor("s__0", "FP32", ("batch",))), "put the outputs else"),
    ],
)
def test_what_triton_could_not_serve_is_refused_by_name(
    run: Run, store: LocalStore, inputs: tuple[Tensor, ...], outputs: tuple[Tensor, ...], message: str
) -> None:
    source = module_source(store, "Plain", Signature(inputs, outputs, True))
    with pytest.raises(CheckFailed) as caught:
        run("torch-to-torchscript", config(), inputs={"model": source})
    assert message in caught.value.message


def test_names_that_are_no_identifiers_go_by_order(run: Run, store: LocalStore, tmp_path: Any) -> None:
    named = Signature((Tensor("x.1:0", "FP32", ("batch", 4)), Tensor("a b", "FP32", ("batch", 3))), OUTPUTS, True)
    made = run("torch-to-torchscript", config(), inputs={"model": module_source(store, "Plain", named)})
    values = [np.ones((2, 4), np.float32), np.full((2, 3), 2, np.float32)]
    found = answers(store, made, tmp_path / "m", dict(zip(("x.1:0", "a b"), values, strict=True)))
    np.testing.assert_allclose(found["y"], eager("Plain", {"x": values[0], "mask": values[1]})[0], rtol=1e-6)
