from __future__ import annotations

from typing import Any

import pytest

from tritonforge.artifact.signature import Signature, Tensor
from tritonforge.errors import SpecError
from tritonforge.repository.config import generate
from tritonforge.repository.ensemble import Member, WiredEnsemble, order, wire
from tritonforge.repository.pbtxt import parse
from tritonforge.spec.models import EnsembleSpec

from .making import CPU, place, request, signature


def member(name: str, inputs: dict[str, str], outputs: dict[str, str], batch: int = 8, **more: Any) -> Member:
    return Member(name, f"{name}--c1", 3, signature(inputs, outputs, batched=batch > 0), batch, **more)


TOKENS = member("tokens", {"TEXT": "BYTES[1]"}, {"IDS": "INT64[n]", "MASK": "INT64[n]"})
EMBED = member("embed", {"IDS": "INT64[-1]", "MASK": "INT64[-1]"}, {"VECTOR": "FP32[384]"}, 32)
MEMBERS = {item.public_name: item for item in (TOKENS, EMBED)}


def wired(members: dict[str, Member] | None = None, **spec: Any) -> WiredEnsemble:
    spec.setdefault("inputs", ["TEXT"])
    spec.setdefault("outputs", ["VECTOR"])
    spec.setdefault("steps", [{"model": "tokens"}, {"model": "embed"}])
    return wire("search", EnsembleSpec.model_validate(spec), members or MEMBERS, place)


def test_models_are_wired_by_the_names_of_their_tensors() -> None:
    found = wired()
    assert found.signature.inputs == (Tensor("TEXT", "BYTES", ("batch", 1)),)
    assert found.signature.outputs == (Tensor("VECTOR", "FP32", ("batch", 384)),)
    assert found.max_batch_size == 8
    assert [(step.folder, step.version) for step in found.steps] == [("tokens--c1", 3), ("embed--c1", 3)]
    assert found.steps[1].inputs == {"IDS": "IDS", "MASK": "MASK"}


def test_the_config_of_an_ensemble_is_complete_and_has_no_instances() -> None:
    found = wired()
    made = generate(
        request(name="search", backend="ensemble", signature=found.signature, max_batch_size=8, layers=(found.layer(),))
    )
    assert made.message == parse("""
        name: "search" platform: "ensemble" max_batch_size: 8
        input { name: "TEXT" data_type: TYPE_STRING dims: 1 }
        output { name: "VECTOR" data_type: TYPE_FP32 dims: 384 }
        ensemble_scheduling {
          step { model_name: "tokens--c1" model_version: 3 input_map { key: "TEXT" value: "TEXT" }
                 output_map { key: "IDS" value: "IDS" } output_map { key: "MASK" value: "MASK" } }
          step { model_name: "embed--c1" model_version: 3 input_map { key: "IDS" value: "IDS" }
                 input_map { key: "MASK" value: "MASK" } output_map { key: "VECTOR" value: "VECTOR" } }
        }""")


@pytest.mark.parametrize(("said", "expected"), [(None, 3), (7, 7), ("latest", -1)])
def test_versions_are_pinned_unless_the_newest_is_asked_for(said: Any, expected: int) -> None:
    found = wired(steps=[{"model": "tokens", "version": said}, {"model": "embed"}])
    assert [step.version for step in found.steps] == [expected, 3]


def test_maps_rename_where_names_differ() -> None:
    members = {"a": member("a", {"IN": "FP32[4]"}, {"OUT": "FP32[4]"})}
    found = wired(
        members,
        inputs=["X"],
        outputs=["Y"],
        steps=[
            {"model": "a", "inputs": {"IN": "X"}, "outputs": {"OUT": "MIDDLE"}},
            {"model": "a", "inputs": {"IN": "MIDDLE"}, "outputs": {"OUT": "Y"}},
        ],
    )
    assert [(dict(step.inputs), dict(step.outputs)) for step in found.steps] == [
        ({"IN": "X"}, {"OUT": "MIDDLE"}),
        ({"IN": "MIDDLE"}, {"OUT": "Y"}),
    ]


def test_steps_may_be_written_in_any_order() -> None:
    assert wired(steps=[{"model": "embed"}, {"model": "tokens"}]).max_batch_size == 8


def test_outputs_that_nothing_takes_stay_out_of_the_maps_and_are_told() -> None:
    members = {
        **MEMBERS,
        "tokens": member("tokens", {"TEXT": "BYTES[1]"}, {"IDS": "INT64[n]", "MASK": "INT64[n]", "COUNT": "INT64[]"}),
    }
    found = wired(members)
    assert found.steps[0].outputs == {"IDS": "IDS", "MASK": "MASK"}
    assert found.unused == ("tokens.COUNT",)


def test_two_steps_may_have_an_unused_output_of_one_name() -> None:
    members = {
        "a": member("a", {"X": "FP32[4]"}, {"M": "FP32[4]", "DEBUG": "FP32[1]"}),
        "b": member("b", {"M": "FP32[4]"}, {"Y": "FP32[4]", "DEBUG": "FP32[1]"}),
    }
    found = wired(members, inputs=["X"], outputs=["Y"], steps=[{"model": "a"}, {"model": "b"}])
    assert found.unused == ("a.DEBUG", "b.DEBUG")


def test_a_step_may_leave_optional_inputs_open() -> None:
    optional = Member(
        "embed", "embed", 1, Signature(
            (EMBED.signature.inputs[0], Tensor("TYPES", "INT64", ("batch", "n"), optional=True)),
            EMBED.signature.outputs, True,
        ), 8,
    )  # fmt: skip
    assert wired({"tokens": TOKENS, "embed": optional}).steps[1].inputs == {"IDS": "IDS"}
    found = wired({"tokens": TOKENS, "embed": optional}, inputs=["TEXT", "TYPES"])
    assert [item.optional for item in found.signature.inputs] == [False, True]


def test_scalars_are_wired_as_one_value() -> None:
    members = {
        "a": member("a", {"X": "FP32[4]"}, {"M": "FP32[]"}),
        "b": member("b", {"M": "FP32[1]"}, {"Y": "FP32[]"}),
    }
    found = wired(members, inputs=["X"], outputs=["Y"], steps=[{"model": "a"}, {"model": "b"}])
    assert found.signature.outputs == (Tensor("Y", "FP32", ("batch", 1)),)


@pytest.mark.parametrize(
    ("batches", "said", "expected"),
    [((8, 32), None, 8), ((8, 32), 4, 4), ((8, 32), 8, 8), ((8, 32), 0, 0), ((0, 0), None, 0), ((0, 0), 0, 0)],
)
def test_the_largest_batch_is_the_members_smallest_unless_less_is_said(
    batches: tuple[int, int], said: int | None, expected: int
) -> None:
    members = {
        "a": member("a", {"X": "FP32[4]"}, {"M": "FP32[2]"}, batches[0]),
        "b": member("b", {"M": "FP32[2]"}, {"Y": "FP32[1]"}, batches[1]),
    }
    found = wired(members, inputs=["X"], outputs=["Y"], steps=[{"model": "a"}, {"model": "b"}], max_batch_size=said)
    assert found.max_batch_size == expected
    assert found.signature.batched == (expected > 0)
    assert found.signature.inputs[0].shape == (("batch", 4) if any(batches) else (4,))


def test_a_model_that_takes_the_batch_as_an_ordinary_axis_may_be_a_neighbour() -> None:
    members = {
        "a": member("a", {"X": "FP32[4]"}, {"M": "FP32[2]"}),
        "b": member("b", {"M": "FP32[rows,2]"}, {"Y": "FP32[rows,1]"}, 0),
    }
    steps = [{"model": "a"}, {"model": "b"}]
    unbatched = wired(members, inputs=["X"], outputs=["Y"], steps=steps)
    assert unbatched.max_batch_size == 0
    assert unbatched.signature.outputs[0].shape == ("batch", 1)
    batched = wired(members, inputs=["X"], outputs=["Y"], steps=steps, max_batch_size=4)
    assert batched.signature.batched


def test_dynamic_axes_of_one_size_get_one_name_and_others_do_not() -> None:
    members = {
        "a": member("a", {"X": "FP32[width]"}, {"M": "FP32[width]"}),
        "b": member("b", {"M": "FP32[n]", "Z": "FP32[width]"}, {"Y": "FP32[n]"}),
    }
    found = wired(members, inputs=["X", "Z"], outputs=["Y"], steps=[{"model": "a"}, {"model": "b"}])
    (x, z), (y,) = found.signature.inputs, found.signature.outputs
    assert x.shape != z.shape
    assert y.shape == ("batch", "n")


def test_declared_types_fix_dynamic_axes() -> None:
    found = wired(inputs={"TEXT": "BYTES[1]"}, outputs={"VECTOR": "FP32[384]"})
    assert found.signature.outputs[0].shape == ("batch", 384)


def test_an_ensemble_may_run_an_ensemble() -> None:
    inner = wired()
    nested = Member("search", "search", 2, inner.signature, inner.max_batch_size)
    members = {"search": nested, "rank": member("rank", {"VECTOR": "FP32[384]"}, {"SCORE": "FP32[]"}, 4)}
    found = wired(members, outputs=["SCORE"], steps=[{"model": "search"}, {"model": "rank"}])
    assert found.max_batch_size == 4
    assert found.steps[0].version == 2


def test_an_ensemble_with_a_decoupled_member_is_decoupled() -> None:
    members = {
        **MEMBERS,
        "tokens": member("tokens", {"TEXT": "BYTES[1]"}, {"IDS": "INT64[n]", "MASK": "INT64[n]"}, decoupled=True),
    }
    assert wired(members).decoupled
    assert not wired().decoupled


def test_an_output_that_feeds_another_step_too_is_warned_of() -> None:
    assert wired().warnings == ()
    (warning,) = wired(outputs=["VECTOR", "IDS"]).warnings
    assert "'IDS'" in warning


def step(model: str, **maps: Any) -> dict[str, Any]:
    return {"model": model, **maps}


CHAIN = {
    "a": member("a", {"X": "FP32[4]"}, {"M": "FP32[2]"}),
    "b": member("b", {"M": "FP32[2]"}, {"Y": "FP32[1]"}),
    "wide": member("wide", {"M": "FP32[3]"}, {"Y": "FP32[1]"}),
    "half": member("half", {"M": "FP16[2]"}, {"Y": "FP32[1]"}),
    "flat": member("flat", {"M": "FP32[2,1]"}, {"Y": "FP32[1]"}),
    "four": member("four", {"M": "FP32[4,2]"}, {"Y": "FP32[4,1]"}, 0),
    "single": member("single", {"M": "FP32[2]"}, {"Y": "FP32[1]"}, 0),
    "loop": member("loop", {"M": "FP32[2]", "Y": "FP32[1]"}, {"M2": "FP32[2]"}),
    "back": member("back", {"M2": "FP32[2]"}, {"Y": "FP32[1]"}),
    "same": member("same", {"X": "FP32[4]"}, {"X": "FP32[4]"}),
    "twins": member("twins", {"L": "FP32[2]", "R": "FP32[2]"}, {"Y": "FP32[1]"}),
    "many": member("many", {"X": "FP32[4]"}, {"L": "FP32[2]"}, decoupled=True),
    "more": member("more", {"X": "FP32[4]"}, {"R": "FP32[2]"}, decoupled=True),
}
AB = [step("a"), step("b")]


@pytest.mark.parametrize(
    ("spec", "message", "field", "words"),
    [
        ({"steps": [step("a"), step("c")]}, "no model 'c'", "steps[1].model", ""),
        ({"outputs": ["YY"]}, "output 'YY' .* produced by no step", "outputs.YY", "did you mean 'Y'"),
        ({"inputs": ["X", "Z"]}, "input 'Z' .* used by no step", "inputs.Z", ""),
        ({"inputs": ["Q"]}, "nothing feeds input 'X' of 'a'", "steps[0].inputs.X", ""),
        ({"steps": [step("b")]}, "nothing feeds input 'M' of 'b'", "steps[0].inputs.M", ""),
        (
            {"steps": [step("a", inputs={"XX": "X"}), step("b")]},
            "'a' has no input 'XX'",
            "steps[0].inputs.XX",
            "did you mean 'X'",
        ),
        (
            {"steps": [step("a", outputs={"MM": "M"}), step("b")]},
            "'a' has no output 'MM'",
            "steps[0].outputs.MM",
            "did you mean 'M'",
        ),
        ({"steps": [*AB, step("a", outputs={"M": "Y"})]}, "'Y' is produced twice", "steps[2].outputs.M", "a.M: FP32"),
        ({"steps": [*AB, step("b")]}, "'Y' is produced twice", "steps[2].outputs.Y", "rename one"),
        (
            {"steps": [step("a", outputs={"M": "X"}), step("b", inputs={"M": "X"})]},
            "'X' is an input of ensemble",
            "steps[0].outputs.M",
            "rename it",
        ),
        ({"steps": [step("same"), *AB]}, "'X' is an input of ensemble", "steps[0].outputs.X", "rename it"),
        ({"steps": [step("a"), step("wide")]}, "axis 1 is 2 and 3", "steps[1].inputs.M", "a.M: FP32[batch,2]"),
        ({"steps": [step("a"), step("half")]}, "FP32 and FP16", "steps[1].inputs.M", "converts"),
        ({"steps": [step("a"), step("flat")]}, "2 and 3 dimensions", "steps[1].inputs.M", "flat.M"),
        ({"steps": [step("a"), step("four")]}, "axis 0 is the batch on one end and 4", "steps[1].inputs.M", "four.M"),
        ({"steps": [step("a"), step("single")]}, "2 and 1 dimensions", "steps[1].inputs.M", "lacks the batch axis"),
        ({"inputs": {"X": "FP16[4]"}}, "FP32 and FP16", "inputs.X", ""),
        ({"inputs": {"X": "FP32[5]"}}, "axis 1 is 4 and 5", "inputs.X", ""),
        ({"outputs": {"Y": "FP32[1,1]"}}, "2 and 3 dimensions", "outputs.Y", ""),
        ({"inputs": {"X": {"type": "FP32[4]", "optional": True}}}, "cannot be optional", "inputs.X", "a.X"),
        ({"max_batch_size": 9}, "larger batches than its members", "max_batch_size", "a: 8"),
        ({"inputs": ["M"], "steps": [step("single")], "max_batch_size": 1}, "cannot batch", "max_batch_size", ""),
        ({"steps": [step("a"), step("loop"), step("back")]}, "wait for each other", "steps[1]", "'Y'"),
        ({"steps": [*AB, step("a", outputs={"M": "M9"})]}, "step 3 .* does nothing", "steps[2]", "remove the step"),
        ({"steps": [step("many"), step("more"), step("twins")]}, "different decoupled models", "steps[2]", "many"),
    ],
)
def test_an_ensemble_that_does_not_fit_is_refused(spec: dict[str, Any], message: str, field: str, words: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        wired(CHAIN, **{"inputs": ["X"], "outputs": ["Y"], "steps": AB, **spec})
    assert caught.value.place is not None
    assert caught.value.place.field == field
    assert words in str(caught.value)


def ensembles(**steps: list[str]) -> dict[str, EnsembleSpec]:
    return {
        name: EnsembleSpec.model_validate(
            {"inputs": ["X"], "outputs": ["Y"], "steps": [{"model": item} for item in models]}
        )
        for name, models in steps.items()
    }


def test_ensembles_come_after_those_that_they_run() -> None:
    found = order(ensembles(top=["left", "right", "m"], left=["base"], right=["base"], base=["m"]))
    assert sorted(found) == ["base", "left", "right", "top"]
    assert found.index("base") < found.index("left") < found.index("top")
    assert found.index("right") < found.index("top")


@pytest.mark.parametrize(
    ("steps", "circle"),
    [({"a": ["a"]}, "a → a"), ({"a": ["b"], "b": ["c"], "c": ["b"]}, "b → c → b")],
)
def test_a_circle_of_ensembles_is_named(steps: dict[str, list[str]], circle: str) -> None:
    with pytest.raises(SpecError, match="in a circle") as caught:
        order(ensembles(**steps), lambda name, path: place((name, *path)))
    assert caught.value.found == circle
    assert caught.value.place is not None


def test_generated_ensembles_pass_the_checks_of_their_platform() -> None:
    found = wired()
    for style in ("default", "latency", "throughput", "edge"):
        config = generate(
            request(
                name="search", backend="ensemble", signature=found.signature, platform=CPU, template=style,
                max_batch_size=found.max_batch_size, layers=(found.layer(),), reshape_scalars=False,
            )
        )  # fmt: skip
        assert not config.message.HasField("optimization")
