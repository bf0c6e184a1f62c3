"""Whatever changes, and wherever it stops: every name that both releases have is answered at every moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tritonforge.errors import UsageError
from tritonforge.repository.router import Arm
from tritonforge.rollout.live_folder import LiveFolder, in_order
from tritonforge.rollout.live_folder_ops import (
    Op,
    candidates,
    clearing,
    going_away,
    going_back,
    setting_aside,
    staging,
    switching,
)
from tritonforge.rollout.live_folder_plan import InPlace, plan_in_place

from .making import ensemble, layout, model, router
from .triton_rules import Server

NAMES = ("a", "b", "c")
CONFIG = "dynamic_batching { }"


@st.composite
def releases(draw: Any) -> dict[str, LiveFolder]:
    """A release of a few models, an ensemble with or without a router, and a model behind one."""
    present = draw(st.sets(st.sampled_from(NAMES), min_size=1))
    numbers = {name: draw(st.integers(1, 3)) for name in NAMES}
    made = [model(name, numbers[name], config=CONFIG * draw(st.booleans())) for name in sorted(present)]
    members = sorted(draw(st.sets(st.sampled_from(sorted(present)), max_size=2)))
    if members:
        wiring = 1 + sum(numbers[name] * 10**place for place, name in enumerate(NAMES) if name in members)
        steps = {name: numbers[name] for name in members}
        if draw(st.booleans()):
            made += [ensemble("e--c1", wiring, steps), router("e", [Arm("e--c1", wiring)])]
        else:
            made.append(ensemble("p", wiring, steps))
    if draw(st.booleans()):
        number = draw(st.integers(1, 2))
        backend = draw(st.sampled_from(("python", "onnxruntime")))
        made.append(model("m--c1", number, backend=backend, content=backend))
        made.append(router("m", [Arm("m--c1", number)], version=draw(st.integers(1, 2))))
    return layout(*made)


def forward(plan: InPlace) -> Iterator[Op]:
    """Everything before the commit, in the strategy's order."""
    yield from staging(plan)
    for group in (candidates(plan), going_away(plan)):
        for changes in group.values():
            yield from changes
    yield from setting_aside(plan, 1.0)
    for changes in switching(plan).values():
        yield from changes


def said(server: Server) -> dict[str, Any]:
    """What the clearing asks the agent for."""
    kinds = {}
    for name, (text, versions, _) in server.disk.items():
        kind = "ensemble" if "ensemble_scheduling" in text else "router" if '"arms"' in text else "model"
        kinds[name] = {"kind": kind, "versions": versions}
    return kinds


def planned(old: dict[str, LiveFolder], new: dict[str, LiveFolder], proving: bool) -> InPlace | None:
    try:
        return plan_in_place(old, new, proving=proving)
    except UsageError:
        return None


@given(releases(), releases(), st.booleans())
def test_every_name_is_answered_on_the_way_there(
    old: dict[str, LiveFolder], new: dict[str, LiveFolder], proving: bool
) -> None:
    plan = planned(old, new, proving)
    if plan is None:
        return
    server = Server.serving(old, in_order(old, old))
    for op in forward(plan):
        server.do(op)
        silent = [name for name in old.keys() & new.keys() if not server.answers(name) and name not in plan.aside]
        assert not silent, f"nobody answers for {silent} after {op['do']} {op.get('folder')}"
    for op in clearing(said(server), plan.new, 1.0):
        server.do(op)
        assert all(server.answers(name) for name in new)
    there = Server.serving(new, in_order(new, new))
    assert (server.disk, server.loaded) == (there.disk, there.loaded)


@given(releases(), releases(), st.booleans(), st.data())
def test_the_way_back_is_right_from_wherever_the_way_there_was_left(
    old: dict[str, LiveFolder], new: dict[str, LiveFolder], proving: bool, data: Any
) -> None:
    plan = planned(old, new, proving)
    if plan is None:
        return
    ways = list(forward(plan))
    server = Server.serving(old, in_order(old, old))
    for op in ways[: data.draw(st.integers(0, len(ways)))]:
        server.do(op)
    back = going_back(plan, 1.0)
    # It may be interrupted, and is then begun anew.
    for op in [*back[: data.draw(st.integers(0, len(back)))], *back]:
        server.do(op)
        silent = [name for name in old.keys() & new.keys() if not server.answers(name) and name not in plan.aside]
        assert not silent, f"nobody answers for {silent} after {op['do']} {op.get('folder')}"
    there = Server.serving(old, in_order(old, old))
    assert (server.disk, server.loaded) == (there.disk, there.loaded)


@given(releases(), releases(), st.data())
def test_a_server_that_restarts_in_the_middle_serves_every_name(
    old: dict[str, LiveFolder], new: dict[str, LiveFolder], data: Any
) -> None:
    plan = planned(old, new, True)
    if plan is None:
        return
    server = Server.serving(old, in_order(old, old))
    ways = list(forward(plan))
    for op in ways[: data.draw(st.integers(0, len(ways)))]:
        server.do(op)
    server.restart()
    silent = [name for name in old.keys() & new.keys() if not server.answers(name) and name not in plan.aside]
    assert not silent
    for op in going_back(plan, 1.0):
        server.do(op)
    there = Server.serving(old, in_order(old, old))
    assert (server.disk, server.loaded) == (there.disk, there.loaded)


def routed(member: LiveFolder, number: int) -> dict[str, LiveFolder]:
    """An ensemble of one member behind its router."""
    version = max(member.versions)
    return layout(member, ensemble("e--c1", number, {"a": version}), router("e", [Arm("e--c1", number)]))


PAIRS = {
    "new versions": (routed(model("a", 1), 1), routed(model("a", 2), 2)),
    # Neither the ensemble nor its router changes, so their configs do not tell how far it came.
    "a member's config": (routed(model("a", 1), 1), routed(model("a", 1, config=CONFIG), 1)),
    "a model behind a router": (
        layout(model("m--c1", 1), router("m", [Arm("m--c1", 1)])),
        layout(model("m--c1", 2, backend="onnxruntime"), router("m", [Arm("m--c1", 2)], version=2)),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_the_way_back_from_every_single_operation(pair: str) -> None:
    old, new = PAIRS[pair]
    plan = plan_in_place(old, new, proving=True)
    ways = list(forward(plan))
    there = Server.serving(old, in_order(old, old))
    for done in range(len(ways) + 1):
        server = there.copy()
        for op in [*ways[:done], *going_back(plan, 1.0)]:
            server.do(op)
            silent = [name for name in old if not server.answers(name) and name not in plan.aside]
            assert not silent, f"nobody answers for {silent} after {op['do']} {op.get('folder')}, left at {done}"
        assert (server.disk, server.loaded) == (there.disk, there.loaded), f"left at {done}"
