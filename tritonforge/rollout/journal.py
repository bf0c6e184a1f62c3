"""The journal of a target: what was intended and done there, and what follows from it.

Events, in the order of a rollout: ``begin``, (``intend``, ``done`` | ``failed``) for each step, ``committed``, then
``finished`` once everything is tidied. Instead of ``committed`` there may be ``undoing`` (tritonforge goes back) or
``reverted`` (the target went back by itself), and then ``undone``. ``committed`` holds the whole new state, so the last
one is what the target serves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonforge.rollout.place import AgentRefused, Place

Event = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A rollout that neither finished nor was undone."""

    rollout: str
    begin: Event
    done: Mapping[str, Any]
    """Result by step."""
    intended: str | None
    """The step that began and of which nothing more is known."""
    committed: bool
    undoing: bool
    reverted: bool
    """The target went back by itself."""


@dataclass(frozen=True, slots=True)
class TargetState:
    """What a target's journal says."""

    events: int
    committed: Mapping[str, Any] | None
    """``{"active": SLOT, "slots": {SLOT: {"release", "image", …}}, "release": …}``; None before the first rollout."""
    unfinished: Unfinished | None
    history: Sequence[Event] = field(default=())
    """Every ``begin`` with how it ended: ``outcome``, ``ended``, ``reason``."""

    @property
    def release(self) -> str | None:
        """The digest of the release that serves."""
        return None if self.committed is None else str(self.committed["release"])


def read_state(events: Sequence[Event]) -> TargetState:
    """Fold a journal into the state that it means."""
    committed: Mapping[str, Any] | None = None
    runs: dict[str, dict[str, Any]] = {}
    for event in events:
        kind, rollout = event["event"], event.get("rollout")
        if kind == "begin":
            runs[str(rollout)] = {"begin": event, "done": {}, "intended": None, "outcome": "unfinished"}
        run = runs.get(str(rollout))
        if run is None:
            continue
        if kind == "intend":
            run["intended"] = event["step"]
        elif kind == "done":
            run["done"][event["step"]] = event.get("result")
            run["intended"] = None
        elif kind == "failed":
            run["reason"] = event.get("error")
        elif kind == "undoing":
            run["undoing"] = True
            run["reason"] = event.get("reason") or run.get("reason")
        elif kind == "committed":
            committed = event["state"]
            run["committed"], run["outcome"], run["ended"] = True, "deployed", event["at"]
        elif kind == "reverted":
            run["reverted"], run["reason"] = True, f"reverted by the {event.get('by')}: nobody confirmed in time"
        elif kind == "finished":
            run["closed"] = True
        elif kind == "undone":
            run["closed"], run["outcome"], run["ended"] = True, "undone", event["at"]
    history = [
        {
            **run["begin"],
            "outcome": run["outcome"],
            "ended": run.get("ended"),
            "reason": run.get("reason"),
        }
        for run in runs.values()
    ]
    unfinished = None
    open_runs = [run for run in runs.values() if not run.get("closed")]
    if open_runs:
        run = open_runs[-1]
        unfinished = Unfinished(
            rollout=str(run["begin"]["rollout"]),
            begin=run["begin"],
            done=run["done"],
            intended=run["intended"],
            committed=bool(run.get("committed")),
            undoing=bool(run.get("undoing")) or bool(run.get("reverted")),
            reverted=bool(run.get("reverted")),
        )
    return TargetState(len(events), committed, unfinished, history)


class Journal:
    """The journal of one rollout, written under that rollout's lock."""

    def __init__(self, place: Place, token: str, rollout: str, events: int) -> None:
        self._place = place
        self._token = token
        self.rollout = rollout
        self._events = events

    def add(self, event: str, **facts: Any) -> None:
        """Append one event durably.

        Raises:
            AgentRefused: the lock was lost (``lock``), or somebody else wrote (``journal``).
        """
        arguments = {
            "token": self._token,
            "after": self._events,
            "event": {"rollout": self.rollout, "event": event, **facts},
        }
        try:
            said = self._place.call("append", arguments)
        except AgentRefused as refused:
            if refused.code != "journal" or "events" not in refused.facts:
                raise
            said = self._after_all(arguments)
        self._events = int(said["seq"])

    def _after_all(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Append once more, after an answer that was lost on its way: under our lock only we and the timer write."""
        there: list[Event] = self._place.call("read")["journal"]
        since = there[self._events :]
        if not since or any(event.get("rollout") != self.rollout or event["event"] == "reverted" for event in since):
            raise AgentRefused("journal", "somebody else wrote to the journal", {"events": len(there)})
        wanted: Mapping[str, Any] = json.loads(json.dumps(arguments["event"]))
        if all(since[-1].get(name) == value for name, value in wanted.items()):
            return {"seq": len(there)}
        said: Mapping[str, Any] = self._place.call("append", {**arguments, "after": len(there)})
        return said
