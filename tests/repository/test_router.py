from __future__ import annotations

import ast
import asyncio
import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tritonforge.errors import SpecError
from tritonforge.repository.config import generate
from tritonforge.repository.router import Arm, arms_parameter, render_router
from tritonforge.sources.python_model import check_interface

from .making import CPU, NEWEST, TEXT, layer, signature

SERVED = signature({"X": "FP32[-1]", "ONE": "FP32[1]"}, {"Y": "FP32[1]"})


def routed(*arms: Arm, **more: Any) -> Any:
    settings = {"signature": SERVED, "max_batch_size": 8, "platform": CPU, **more}
    return render_router("m", arms or (Arm("m--c1", 3),), **settings)


def test_a_router_has_the_public_name_and_the_tensors_of_its_arm() -> None:
    config = generate(routed(platform=NEWEST).request)
    message = config.message
    assert (message.name, message.backend, message.max_batch_size) == ("m", "python", 8)
    assert [(item.name, list(item.dims), item.HasField("reshape")) for item in message.input] == [
        ("X", [-1], False),
        ("ONE", [1], False),
    ]
    assert message.HasField("dynamic_batching")
    assert [group.Kind.Name(group.kind) for group in message.instance_group] == ["KIND_CPU"]
    assert message.instance_group[0].count > 1
    assert json.loads(message.parameters["arms"].string_value) == [{"model": "m--c1", "version": 3, "weight": 100}]


def test_a_router_of_a_model_without_batches() -> None:
    message = generate(routed(signature=TEXT, max_batch_size=0).request).message
    assert message.max_batch_size == 0
    assert not message.HasField("dynamic_batching")


def test_layers_change_a_router_as_any_model() -> None:
    message = generate(routed(layers=(layer({"instance_group": [{"count": 9}]}),)).request).message
    assert message.instance_group[0].count == 9
    assert "arms" in message.parameters


def test_other_arms_are_another_config_and_the_same_file() -> None:
    one, other = routed(), routed(Arm("m--c1", 3, 90), Arm("m--c2", None, 10))
    assert one.files == other.files
    assert generate(one.request).text != generate(other.request).text
    assert json.loads(arms_parameter([Arm("m--c2")])) == [{"model": "m--c2", "version": -1, "weight": 100}]


def test_the_file_is_a_python_model_that_old_pythons_read(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_bytes(routed().files["model.py"])
    check_interface(tmp_path)
    # The oldest Python that a Triton of the schema's baseline has.
    ast.parse(routed().files["model.py"], feature_version=(3, 8))


@pytest.mark.parametrize(
    ("arms", "more", "message"),
    [
        ((Arm("m--c1"),), {"decoupled": True}, "is decoupled"),
        ((Arm("m"),), {}, "would ask itself"),
        ((Arm("m--c1", None, 0),), {}, "nowhere to send"),
        ((Arm("m--c1", None, -1), Arm("m--c2", None, 5)), {}, "nowhere to send"),
        ((Arm("m--c1"),), {"template": "blz"}, "no template 'blz'"),
    ],
)
def test_routers_that_cannot_be(arms: tuple[Arm, ...], more: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        routed(*arms, **more)


def test_a_template_of_the_users_must_write_python(tmp_path: Path) -> None:
    (tmp_path / "mine.py.j2").write_text("class {{ name }}(:")
    with pytest.raises(SpecError, match="no valid Python"):
        routed(template="mine.py.j2", template_folders=(tmp_path,))


class Request:
    """A request as Triton's Python backend hands it over."""

    def __init__(self, correlation_id: Any = 0, parameters: str = "{}") -> None:
        self._values = {
            "inputs": ["X", "ONE"], "requested_output_names": ["Y"], "request_id": "r1", "flags": 1, "timeout": 5,
            "trace": "trace", "correlation_id": correlation_id, "parameters": parameters,
        }  # fmt: skip

    def __getattr__(self, name: str) -> Any:
        return lambda: self._values[name]


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands in for ``triton_python_backend_utils``; ``asked`` holds what the arms were asked."""
    module: Any = types.ModuleType("triton_python_backend_utils")
    module.asked = []
    module.answer = lambda request: None

    class TritonModelException(Exception):
        pass

    class InferenceResponse:
        def __init__(self, output_tensors: Any, error: Any = None) -> None:
            self.tensors, self.problem = output_tensors, error

        def has_error(self) -> bool:
            return self.problem is not None

        def error(self) -> Any:
            return self.problem

        def output_tensors(self) -> Any:
            return self.tensors

    class InferenceRequest:
        def __init__(self, **values: Any) -> None:
            """InferenceRequest(request_id: str, timeout: int, trace: object, parameters: object)"""
            self.values = values

        async def async_exec(self) -> Any:
            module.asked.append(self.values)
            await asyncio.sleep(0)
            return module.answer(self.values) or InferenceResponse(["Y of " + self.values["model_name"]])

    module.TritonModelException, module.TritonError = TritonModelException, lambda text: f"TritonError({text})"
    module.InferenceResponse, module.InferenceRequest = InferenceResponse, InferenceRequest
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", module)
    return module


def loaded(*arms: Arm) -> Any:
    rendered = routed(*arms)
    names: dict[str, Any] = {}
    exec(compile(rendered.files["model.py"], "model.py", "exec"), names)
    model = names["TritonPythonModel"]()
    parameters = {"arms": {"string_value": arms_parameter(rendered_arms(rendered))}}
    model.initialize({"model_config": json.dumps({"parameters": parameters})})
    return model


def rendered_arms(rendered: Any) -> list[Arm]:
    text = generate(rendered.request).message.parameters["arms"].string_value
    return [Arm(item["model"], item["version"], item["weight"]) for item in json.loads(text)]


def test_everything_of_a_request_goes_to_the_arm(backend: Any) -> None:
    responses = asyncio.run(loaded().execute([Request(parameters='{"who": "me"}'), Request()]))
    assert [response.tensors for response in responses] == [["Y of m--c1"], ["Y of m--c1"]]
    assert backend.asked[0] == {
        "model_name": "m--c1", "model_version": 3, "inputs": ["X", "ONE"], "requested_output_names": ["Y"],
        "request_id": "r1", "correlation_id": 0, "flags": 1, "timeout": 5, "trace": "trace",
        "parameters": {"who": "me"},
    }  # fmt: skip
    assert "parameters" not in backend.asked[1]


def test_the_errors_of_an_arm_are_the_routers(backend: Any) -> None:
    backend.answer = lambda values: backend.InferenceResponse([], "no such token")
    (response,) = asyncio.run(loaded().execute([Request()]))
    assert (response.tensors, response.problem) == ([], "no such token")


def test_one_request_that_fails_does_not_fail_the_others(backend: Any) -> None:
    def answer(values: dict[str, Any]) -> None:
        if values["correlation_id"] == 1:
            raise backend.TritonModelException("not ready")

    backend.answer = answer
    first, second = asyncio.run(loaded().execute([Request(1), Request(2)]))
    assert first.problem == "TritonError(not ready)"
    assert second.problem is None


def test_shares_follow_the_weights_and_a_sequence_stays_on_its_arm(backend: Any) -> None:
    model = loaded(Arm("m--c1", 1, 75), Arm("m--c2", 2, 25))
    asyncio.run(model.execute([Request() for _ in range(2000)]))
    share = sum(item["model_name"] == "m--c1" for item in backend.asked) / 2000
    assert 0.68 < share < 0.82
    backend.asked.clear()
    for correlation_id in [*range(1, 400), *(f"session-{number}" for number in range(400))]:
        asyncio.run(model.execute([Request(correlation_id), Request(correlation_id)]))
    pairs = list(zip(backend.asked[::2], backend.asked[1::2], strict=True))
    assert all(one["model_name"] == other["model_name"] for one, other in pairs)
    assert 0.65 < sum(one["model_name"] == "m--c1" for one, _ in pairs) / len(pairs) < 0.85


def test_an_arm_without_weight_is_asked_nothing(backend: Any) -> None:
    asyncio.run(loaded(Arm("m--c1", 1, 100), Arm("m--c2", 2, 0)).execute([Request(n) for n in range(300)]))
    assert {item["model_name"] for item in backend.asked} == {"m--c1"}
