"""One slot: one server that is changed in place, model by model, in a live folder of its own.

What is new is loaded beside what serves, under names that no client knows, and proven there. Then the names that
clients use change over, each by one load, which Triton does atomically. Until the commit the target itself goes back
when it does not hear of this process any more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.errors import CheckFailed, EnvironmentLacks, Inconclusive, UsageError
from tritonforge.measure.gate import Verdict
from tritonforge.rollout import live_folder_ops as ops
from tritonforge.rollout.analysis import enough, judge
from tritonforge.rollout.delivery import deliver
from tritonforge.rollout.host import Bundle, Host, ServerStart
from tritonforge.rollout.journal import Journal, TargetState
from tritonforge.rollout.live_folder_plan import InPlace, plan_in_place
from tritonforge.rollout.place import AgentRefused
from tritonforge.rollout.points import remote
from tritonforge.rollout.readiness_watch import watched_readiness
from tritonforge.rollout.statistics_window import counters, seen_between
from tritonforge.rollout.steps import Step, run_steps
from tritonforge.rollout.strategies.one_slot_layouts import (
    STRATEGY,
    configs_of,
    layout,
    layouts,
    planned,
    summary_of,
)
from tritonforge.rollout.strategies.two_slots import log_end, wait_ready
from tritonforge.rollout.strategy import Candidate, Pace, Progress, Prove

SLOT: Final = "blue"
_POLL: Final = 0.25


def one_slot_start(bundle: Bundle, image: str | None, settings: Mapping[str, Any]) -> ServerStart:
    """What the one server is started with; not the release, which changes while it runs."""
    arguments = () if settings.get("operated") == "elsewhere" else bundle.arguments
    return ServerStart("", arguments, image, "explicit", "live", {**settings, "public": True})


@dataclass(slots=True)
class OneSlot:
    """One rollout in the one slot. ``prove`` is None where there is nothing to ask: a rollback to a proven release."""

    host: Host
    journal: Journal
    token: str
    state: TargetState
    bundle: Bundle
    start: ServerStart
    pace: Pace
    prove: Prove | None
    progress: Progress
    warnings: list[str] = field(default_factory=list, init=False)
    """What its operator should know, beside the outcome."""
    _plan: InPlace | None = field(default=None, init=False)

    def run(self, done: Mapping[str, Any]) -> None:
        """Take the release to the commit, going on after the steps that are ``done``.

        Every step but the delivery is gone through again: each does nothing where it is done.

        Raises:
            ForgeError: a step failed, or the release cannot take over in place. Nothing is undone here.
        """
        bring = Step("deliver", f"bringing release {self.bundle.release[:12]} to the target", self._deliver)
        if self.bundle.folder is not None:
            self._check_server()
            plan = self.plan()  # a release that cannot take over need not travel
        run_steps([bring], self.journal, {name: done[name] for name in done if name == "deliver"}, self.progress)
        if self.bundle.folder is None:
            self._check_server()
            plan = self.plan()
        run_steps(self._steps(plan), self.journal, {}, self.progress)
        self._commit()

    def tidy(self) -> None:
        """After the commit: end the timer, then end and delete what the release does not name."""
        self.host.place.call("disarm", {"token": self.token})
        self._point_at_server()
        there = self.host.place.call("live", {"releases": [self.bundle.release]})
        new = layout(self.bundle, configs_of(there["configs"], self.bundle)[self.bundle.release])
        clearing = [*ops.clearing(there["folders"], new, self.pace.drain), {"do": "sweep"}]
        self._apply("tidy", clearing, offline=not self.host.status(SLOT).running)
        self.host.place.call("prune", {"token": self.token, "keep": self._kept()}, timeout=600.0)
        self.journal.add("finished")

    def undo(self, reason: str) -> None:
        """Go back to what was committed; can be done again from its beginning.

        Raises:
            ForgeError: the target is not reached; its dead-man timer, or the next command, does it then.
        """
        first = self.state.committed is None
        back = [*self._way_back(), {"do": "sweep"}]
        running = self.host.status(SLOT).running
        if not first:
            committed = self._committed_start()
            if not running or self.host.status(SLOT).fingerprint != committed.fingerprint:
                self._start_with(committed)
            running = True
        self._point_at_server()
        self.progress("going back to what served before")
        self._apply("undo", back, offline=not running)
        self.journal.add("undoing", reason=reason)
        self.host.place.call("disarm", {"token": self.token})
        if first:
            with remote("host.stop"):
                self.host.stop(SLOT, self.pace.drain)
        self.journal.add("undone")

    def plan(self) -> InPlace:
        """What changes, from what is committed to the release.

        Raises:
            UsageError: it cannot take over in place.
        """
        if self._plan is None:
            self._plan = planned(self.host, self.state, self.bundle, proving=self.prove is not None)
        return self._plan

    # --- the plan

    def _committed_start(self) -> ServerStart:
        committed = self.state.committed
        assert committed is not None
        return ServerStart.from_json({**committed["slots"][SLOT], "release": ""})

    def _way_back(self) -> list[ops.Op]:
        """To the committed release, and nothing else left; right from wherever the way there was left."""
        try:
            old, new = layouts(self.host, self.state, self.bundle)
            back = [] if new is None else ops.going_back(plan_in_place(old, new, proving=True), self.pace.drain)
        except UsageError:  # refused, so nothing was changed
            return []
        # The delivery comes first: without it nothing but leftovers can be there.
        return [*back, *ops.clearing(self.host.place.call("live")["folders"], old, self.pace.drain)]

    # --- steps

    def _steps(self, plan: InPlace) -> list[Step]:
        steps = [Step("start", "starting the server", lambda: self._start(plan))]
        steps.append(Step("stage", "copying", lambda: self._stage(plan)))
        steps.append(Step("load-candidates", "loading the newcomers", lambda: self._load_candidates(plan)))
        if self.prove is not None:
            steps.append(Step("prove", "proving the newcomers under their own names", lambda: self._prove(plan)))
        if self.state.committed is None or not plan.visible:
            return steps
        seen: dict[str, Any] = {}
        steps.append(Step("look", "looking at what serves", lambda: seen.update(self._window(plan, armed=False))))
        steps.append(Step("arm", "arming the dead-man timer", lambda: self._arm(plan)))
        for name, changes in ops.going_away(plan).items():
            steps.append(self._change_step(f"away-{name}", f"leading {name} to its candidate", changes))
        aside = ops.setting_aside(plan, self.pace.drain)
        if aside:
            steps.append(self._change_step("aside", "ending what nobody asks now", aside))
        for name, changes in ops.switching(plan).items():
            steps.append(self._change_step(f"switch-{name}", f"switching {name}", changes))
        steps.append(Step("watch", "watching what serves now", lambda: self._watch(plan, seen)))
        return steps

    def _change_step(self, name: str, words: str, changes: list[ops.Op]) -> Step:
        return Step(name, words, lambda: self._apply(name, changes))

    def _deliver(self) -> dict[str, Any]:
        return deliver(self.host.place, self.bundle, self.token, self.progress)

    def _check_server(self) -> None:
        """The server goes on; where it would have to be started anew, that is asked for."""
        if self.state.committed is None or self._committed_start().fingerprint == self.start.fingerprint:
            return
        if not self.pace.restart:
            before, after = self._committed_start(), self.start
            raise UsageError(
                "the one server would have to be started anew, and requests in that time would fail",
                expected=f"image {before.image}, arguments {' '.join(before.arguments) or 'none'}",
                found=f"image {after.image}, arguments {' '.join(after.arguments) or 'none'}",
                hint="allow it with `rollout: {restart: true}`, or use `strategy: two-slots`",
            )

    def _start(self, plan: InPlace) -> dict[str, Any]:
        self._start_with(self.start)
        self._point_at_server()
        # A server that was restarted without `--load-model=*` serves nothing of what is committed.
        self._apply("serve", ops.serving(plan.old))
        foreign = self.host.place.call("live")["foreign"]
        if foreign:
            self.warnings.append(f"left alone in the server's repository: {', '.join(foreign)}")
        return {"fingerprint": self.start.fingerprint, "left_alone": foreign}

    def _start_with(self, start: ServerStart) -> None:
        self._apply("make", [{"do": "make"}], offline=True)
        with remote("host.start"):
            self.host.start(SLOT, start)
        wait_ready(self.host, SLOT, self.pace.ready, self.progress)

    def _point_at_server(self) -> None:
        """Tell the agent where the server is: its load calls are the agent's."""
        address = self.host.address(SLOT)
        with self.host.reach(SLOT) as connection:
            tls = connection.tls
            self.host.place.call(
                "control",
                {
                    "token": self.token,
                    "url": f"{'http' if tls is None else 'https'}://{address.host}:{address.http}",
                    "headers": dict(connection.headers),
                    "ca": None if tls is None or tls.ca is None else str(tls.ca),
                    "cert": None if tls is None or tls.cert is None else str(tls.cert),
                    "key": None if tls is None or tls.key is None else str(tls.key),
                },
            )

    def _stage(self, plan: InPlace) -> None:
        self._apply("stage", ops.staging(plan))

    def _load_candidates(self, plan: InPlace) -> dict[str, Any]:
        loads = ops.candidates(plan)
        with self.host.reach(SLOT) as connection, watched_readiness(connection) as unready:
            for name, changes in loads.items():
                self.progress(f"{name}: loading")
                self._apply(f"candidate-{name}", changes)
        if unready.is_set():
            self.warnings.append(
                "the server called itself unready while a newcomer was loading, though it served on: start it with "
                "`--strict-readiness=false`, and probe models and not the server"
            )
        return {"loaded": len(loads), "called_unready": unready.is_set()}

    def _prove(self, plan: InPlace) -> dict[str, Any]:
        assert self.prove is not None
        among: dict[str, Candidate] = {}
        for name in plan.added:
            among[name] = Candidate(name, plan.new[name].message)
        for name, folder in plan.candidates.items():
            among[name] = Candidate(folder.name, folder.message)
        with self.host.reach(SLOT) as connection:
            return dict(self.prove(connection, self.progress, among))

    def _arm(self, plan: InPlace) -> None:
        back = {"op": "apply", "ops": ops.going_back(plan, self.pace.drain), "seconds": self.pace.ready}
        self.host.place.call(
            "arm",
            {
                "token": self.token,
                "rollout": self.journal.rollout,
                "seconds": self.pace.deadman,
                "revert": [back],
            },
        )

    def _watch(self, plan: InPlace, before: Mapping[str, Any]) -> dict[str, Any]:
        after = self._window(plan, armed=True)["seen"]
        analysis = judge(after, before["seen"], self.pace.bounds)
        if analysis.verdict is Verdict.FAIL:
            raise CheckFailed(f"what serves now is worse: {analysis.reason}")
        if analysis.verdict is Verdict.INCONCLUSIVE:
            raise Inconclusive(f"there is no verdict over what serves now: {analysis.reason}")
        return {"reason": analysis.reason, **analysis.facts}

    def _window(self, plan: InPlace, *, armed: bool) -> dict[str, Any]:
        """What the names that change did for a while, by Triton's own statistics."""
        with self.host.reach(SLOT) as connection:
            first = counters(connection, plan.visible)
            began = confirmed = time.monotonic()
            while True:
                time.sleep(min(_POLL, self.pace.hold) or 0.01)
                clock = time.monotonic()
                if armed and clock - confirmed > self.pace.deadman / 5:
                    self.host.place.call("confirm", {"token": self.token})
                    confirmed = clock
                if clock - began < self.pace.hold:
                    continue
                seen = seen_between(first, counters(connection, plan.visible))
                idle = not seen.requests or not armed
                if idle or enough(seen, self.pace.bounds) or clock - began >= self.pace.hold + self.pace.wait:
                    return {"seen": seen}

    def _commit(self) -> None:
        """Make it what the target serves, by one line of the journal."""
        plan = self.plan()
        self.journal.add(
            "committed",
            state={
                "active": SLOT,
                "release": self.bundle.release,
                "previous": self.state.release,
                "strategy": STRATEGY,
                "slots": {
                    SLOT: {
                        **self.start.to_json(),
                        "release": self.bundle.release,
                        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                        "document": summary_of(self.bundle),
                    }
                },
                "live": {
                    name: {"versions": folder.numbers, "config": folder.digest} for name, folder in plan.new.items()
                },
            },
        )
        self.host.place.call("disarm", {"token": self.token})

    def _apply(self, label: str, changes: list[ops.Op], *, offline: bool = False) -> None:
        """Have the agent do it, in order.

        Raises:
            CheckFailed: the server refuses a model, or serves another thing than what was loaded.
            EnvironmentLacks: the server does not answer, or does not let itself be changed.
        """
        loads = sum(item["do"] in ("load", "unload", "quiet") for item in changes)
        arguments = {
            "token": self.token,
            "label": label,
            "ops": changes,
            "seconds": self.pace.ready,
            "offline": offline,
        }
        try:
            self.host.place.call("apply", arguments, timeout=3600.0 + 2 * loads * self.pace.ready)
        except AgentRefused as refused:
            reasons = [str(reason) for reason in refused.facts.get("reasons") or []]
            if refused.code == "load":
                raise CheckFailed(refused.message, details=reasons or log_end(self.host, SLOT)) from None
            if refused.code == "server":
                status = self.host.status(SLOT)
                words = refused.message if status.running else f"the server ended: {status.words}"
                raise EnvironmentLacks(words, details=log_end(self.host, SLOT)) from None
            if refused.code == "control":
                raise EnvironmentLacks(refused.message) from None
            raise

    def _kept(self) -> list[str]:
        """The releases whose files stay on the target, newest first."""
        order = [self.bundle.release]
        order += [str(event["release"]) for event in reversed(self.state.history) if event["outcome"] == "deployed"]
        return list(dict.fromkeys(order))[: self.pace.retention]
