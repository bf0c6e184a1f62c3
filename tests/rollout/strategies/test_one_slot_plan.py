"""What one server changes in place from a release to the next, and what it refuses."""

from __future__ import annotations

import json

import pytest

from tritonforge.errors import UsageError
from tritonforge.repository.router import Arm
from tritonforge.rollout.live_folder import LiveFolder, arms_of
from tritonforge.rollout.live_folder_ops import candidates, clearing, going_back, staging, switching
from tritonforge.rollout.live_folder_plan import InPlace, plan_in_place

from .making import TENSORS, ensemble, layout, model, router

WIDER = TENSORS.replace("dims: [1]", "dims: [2]", 1)
SEQUENCE = "sequence_batching { max_sequence_idle_microseconds: 1000 }"


def plan(old: dict[str, LiveFolder], new: dict[str, LiveFolder], *, proving: bool = True) -> InPlace:
    return plan_in_place(old, new, proving=proving)


def routed(member: int, wiring: int | None = None) -> dict[str, LiveFolder]:
    """An ensemble of one member behind its router; its own version goes with its member's."""
    number = member if wiring is None else wiring
    return layout(
        model("a", member),
        ensemble("e--c1", number, {"a": member}),
        router("e", [Arm("e--c1", number)]),
    )


def test_the_same_release_changes_nothing() -> None:
    found = plan(routed(1), routed(1))
    assert found.empty
    assert found.lines() == []
    assert (staging(found), candidates(found), switching(found), going_back(found, 1.0)) == ([], {}, {}, [])


def test_a_new_version_is_proven_as_a_candidate_and_then_takes_its_files() -> None:
    found = plan(layout(model("a", 1), model("b", 1)), layout(model("a", 2), model("b", 1)))
    assert (found.switched, found.added, found.removed, found.away) == (("a",), (), (), {})
    candidate = found.candidates["a"]
    assert (candidate.name, candidate.message.name, candidate.numbers) == ("a--candidate", "a--candidate", ["2"])
    first, *rest = switching(found)["a"]
    assert first == {"do": "unload", "folder": "a--candidate"}
    assert [(op["do"], op["folder"], op.get("take")) for op in rest] == [
        ("put", "a", "a--candidate"),
        ("load", "a", None),
    ]
    assert rest[1]["versions"] == ["2"]
    assert "versions: [2]" in rest[0]["config"]


def test_the_live_config_names_the_served_versions_whatever_lies_beside_them() -> None:
    assert list(model("a", 3).message.version_policy.specific.versions) == [3]
    assert list(model("a", 1, 2, config="version_policy { all { } }").message.version_policy.specific.versions) == [
        1,
        2,
    ]


def test_a_changed_config_alone_is_a_change() -> None:
    found = plan(layout(model("a", 1)), layout(model("a", 1, config="dynamic_batching { }")))
    assert found.switched == ("a",)
    assert found.candidates["a"].message.HasField("dynamic_batching")


def test_added_models_come_under_their_own_names_and_removed_ones_go_after_the_commit() -> None:
    found = plan(layout(model("a", 1)), layout(model("b", 1)))
    assert (found.added, found.removed, found.switched) == (("b",), ("a",), ())
    assert list(candidates(found)) == ["b"]
    present = {"a": {"kind": "model", "versions": {"1": {}}}, "b": {"kind": "model", "versions": {"1": {}}}}
    assert [(op["do"], op.get("folder")) for op in clearing(present, found.new, 1.0)] == [
        ("quiet", None),
        ("unload", "a"),
        ("drop", "a"),
    ]


def test_the_first_release_adds_everything_from_its_parts_on() -> None:
    found = plan({}, routed(1))
    assert found.added == ("a", "e--c1", "e")
    assert found.candidates == {}


def test_an_ensemble_changes_behind_its_router() -> None:
    found = plan(routed(1), routed(2))
    assert (found.switched, found.aside, found.back, found.settled) == (("a",), ("e--c1",), ("e--c1",), ("e",))
    arms = arms_of(found.away["e"].message)
    assert arms == [{"model": "e--c1--candidate", "version": 2, "weight": 100}]
    assert [step.model_name for step in found.candidates["e--c1"].message.ensemble_scheduling.step] == ["a--candidate"]
    # Until the router is back, its candidates serve: none of them may go.
    assert found.held == {"a", "e--c1"}
    assert not any(op["do"] == "unload" or "take" in op for ops in switching(found).values() for op in ops)
    assert list(switching(found)) == ["a", "e--c1", "e"]


def test_a_candidate_router_has_one_instance() -> None:
    found = plan(routed(1), routed(2))
    assert [group.count for group in found.candidates["e"].message.instance_group] == [1]
    assert [group.count for group in found.away["e"].message.instance_group] == [4]


def test_a_members_config_moves_its_ensemble_aside_though_that_does_not_change() -> None:
    old, new = routed(1), routed(1)
    new["a"] = model("a", 1, config="dynamic_batching { }")
    found = plan(old, new)
    assert (found.switched, found.aside, found.settled) == (("a",), ("e--c1",), ("e",))


def test_a_model_behind_a_router_may_have_another_backend() -> None:
    old = layout(model("m--c1", 1), router("m", [Arm("m--c1", 1)]))
    new = layout(model("m--c1", 2, backend="onnxruntime"), router("m", [Arm("m--c1", 2)]))
    found = plan(old, new)
    assert (found.switched, found.settled, sorted(found.held)) == (("m--c1",), ("m",), ["m--c1"])
    assert "another backend (python → onnxruntime)" in found.notes[0]


def test_an_ensemble_that_is_new_waits_for_the_member_that_changes() -> None:
    old = layout(model("a", 1))
    new = layout(model("a", 2), ensemble("e", 1, {"a": 2}))
    found = plan(old, new)
    assert (found.added, found.switched, found.back) == ((), ("a",), ("e",))
    assert found.candidates["e"].parts == {"a--candidate"}


def test_a_rollback_that_proves_nothing_loads_only_what_must_stand_in() -> None:
    assert plan(layout(model("a", 2)), layout(model("a", 1)), proving=False).candidates == {}
    assert sorted(plan(routed(2), routed(1), proving=False).candidates) == ["a", "e--c1"]


def test_a_candidates_name_is_nobody_elses() -> None:
    old = layout(model("a", 1), model("a--candidate", 1))
    found = plan(old, layout(model("a", 2), model("a--candidate", 1)))
    assert found.candidates["a"].name == "a--candidate-"


def test_what_is_served_is_watched_by_its_public_names() -> None:
    assert plan(routed(1), routed(2)).visible == {"a", "e--c1", "e"}


REFUSED = {
    "an ensemble without a router": (
        layout(model("a", 1), ensemble("e", 1, {"a": 1})),
        layout(model("a", 2), ensemble("e", 2, {"a": 2})),
        "e: an ensemble that clients reach without a router changes because of a",
    ),
    "a member of an ensemble without a router": (
        layout(model("a", 1), ensemble("e", 1, {"a": 1})),
        layout(model("a", 1, config="dynamic_batching { }"), ensemble("e", 1, {"a": 1})),
        "e: an ensemble that clients reach without a router changes because of a",
    ),
    "another signature": (
        layout(model("a", 1)),
        layout(model("a", 2, tensors=WIDER)),
        "a: another signature (its inputs)",
    ),
    "another batch size": (
        layout(model("a", 1)),
        layout(model("a", 2, tensors=TENSORS.replace("4", "8"))),
        "a: another max_batch_size (4 → 8)",
    ),
    "another backend": (
        layout(model("a", 1)),
        layout(model("a", 2, backend="onnxruntime")),
        "a: another backend (python → onnxruntime)",
    ),
    "a decoupled model": (
        layout(model("a", 1)),
        layout(model("a", 2, config="model_transaction_policy { decoupled: true }")),
        "a: decoupled or not is part of its signature",
    ),
    "a sequence model": (
        layout(model("a", 1, config=SEQUENCE)),
        layout(model("a", 2, config=SEQUENCE)),
        "a: a sequence model",
    ),
    "a version that is rewritten": (
        layout(model("a", 1)),
        layout(model("a", 1, content="b")),
        "a: version 1 stands for other files",
    ),
    "a model that becomes a router": (
        layout(model("a", 1)),
        layout(model("a--c1", 1), router("a", [Arm("a--c1", 1)], 2)),
        "a: is a model, and would become a router",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_change_without_loss_is_refused_with_the_ways_that_can(case: str) -> None:
    old, new, why = REFUSED[case]
    with pytest.raises(UsageError) as raised:
        plan(old, new)
    assert any(detail.startswith(why) for detail in raised.value.details), raised.value.details
    assert "two-slots" in str(raised.value.hint)
    assert "router: true" in str(raised.value.hint)


def test_every_reason_is_named_at_once() -> None:
    old = layout(model("a", 1), model("b", 1))
    with pytest.raises(UsageError) as raised:
        plan(old, layout(model("a", 2, tensors=WIDER), model("b", 2, backend="pytorch")))
    assert [detail.partition(":")[0] for detail in raised.value.details] == ["a", "b"]


def test_operations_are_plain_data() -> None:
    found = plan(routed(1), routed(2))
    text = json.dumps([staging(found), candidates(found), switching(found), going_back(found, 1.0)])
    assert "a--candidate" in text
