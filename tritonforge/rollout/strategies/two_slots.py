"""Two slots: the new release starts beside the old one, is proven on a private port, and gets the traffic by weights.

Nothing that clients see changes before the first weight. From then until the commit the target itself goes back when it
does not hear of this process any more. The commit is one line of the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tritonforge.artifact.digest import digest_bytes
from tritonforge.errors import CheckFailed, ForgeError, Inconclusive
from tritonforge.measure.gate import Verdict
from tritonforge.rollout.analysis import Analysis, Reading, between, enough, judge, reading
from tritonforge.rollout.delivery import deliver
from tritonforge.rollout.haproxy import CONFIG, ProxySettings, proxy_config, with_weights
from tritonforge.rollout.host import SLOTS, Bundle, Host, ServerStart
from tritonforge.rollout.journal import Journal, TargetState
from tritonforge.rollout.points import remote
from tritonforge.rollout.steps import Step, run_steps
from tritonforge.rollout.strategy import Pace, Progress, Prove
from tritonforge.triton.connection import Connection

_POLL: Final = 0.25
_SEEN: Final = 20.0
"""Seconds in which the proxy's checks find a server that is ready."""


@dataclass(slots=True)
class TwoSlots:
    """One rollout between two slots. ``prove`` is None where nothing is to be asked: a rollback to a proven release."""

    host: Host
    journal: Journal
    token: str
    state: TargetState
    bundle: Bundle
    start: ServerStart
    slot: str
    proxy: ProxySettings
    pace: Pace
    prove: Prove | None
    progress: Progress
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What the proxy's configuration names, by path below the root; it may hold secrets."""

    @property
    def old(self) -> str | None:
        """The slot that serves now."""
        committed = self.state.committed
        return None if committed is None else str(committed["active"])

    def steps(self) -> list[Step]:
        """What is done before the commit, in order."""
        short = self.bundle.release[:12]
        steps = [
            Step("deliver", f"bringing release {short} to the target", self._deliver),
            Step("start", f"starting {self.slot}", self._start),
            Step("ready", f"waiting until {self.slot} is ready", self._ready),
        ]
        if self.prove is not None:
            steps.append(Step("prove", f"proving {self.slot} on its private port", self._prove))
        steps.append(Step("proxy", "making the proxy ready", self._proxy))
        if self.old is not None and self.old != self.slot:
            for weight in self._weights():
                steps.append(Step(f"shift-{weight}", f"{weight} % to {self.slot}", self._shifter(weight)))
                steps.append(Step(f"watch-{weight}", f"watching {self.slot} at {weight} %", self._watcher(weight)))
        return steps

    def run(self, done: Mapping[str, Any]) -> None:
        """Take the release to the commit, going on after the steps that are ``done``.

        Raises:
            ForgeError: a step failed. Nothing is undone here: ``undo`` does that.
        """
        if self.old is not None and any(name.startswith("shift-") for name in done):
            # Going on in the middle: the target may have gone back meanwhile, and what was seen is past.
            done = {name: result for name, result in done.items() if not name.startswith(("shift-", "watch-"))}
        if "start" in done and not self.host.status(self.slot).running:
            done = {name: result for name, result in done.items() if name == "deliver"}
        if "proxy" in done and not self.host.proxy_status().running:
            done = {name: result for name, result in done.items() if name != "proxy"}
        run_steps(self.steps(), self.journal, done, self.progress)
        self.commit()

    def take_over(self) -> None:
        """Put the proxy before a server that runs already, and commit that."""
        run_steps([Step("proxy", "making the proxy ready", self._proxy)], self.journal, {}, self.progress)
        self.commit()

    def commit(self) -> None:
        """Make it what the target serves: the proxy's file, then the journal's line. The rest can be done later."""
        self._settle({self.slot: 100})
        slots = dict((self.state.committed or {}).get("slots", {}))
        slots[self.slot] = {**self.start.to_json(), "since": _utc(), "document": _summary(self.bundle)}
        self.journal.add(
            "committed",
            state={
                "active": self.slot,
                "release": self.bundle.release,
                "previous": None if self.old is None else self.state.release,
                "strategy": "two-slots",
                "slots": slots,
                "proxy": proxy_digest(self.host, self.proxy),
            },
        )

    def tidy(self) -> None:
        """After the commit: end the timer, drain the old server, leave it warm or stop it, prune what nobody needs."""
        self._weigh({self.slot: 100}, spares=[name for name in (self.slot, self.old) if name])
        self.host.place.call("disarm", {"token": self.token})
        if self.old is not None and self.old != self.slot:
            self.progress(f"draining {self.old}")
            self._drain(self.old)
            if not self.pace.keep_warm:
                self._weigh({self.slot: 100}, spares=[self.slot])
                with remote("host.stop"):
                    self.host.stop(self.old, self.pace.drain)
        self.host.place.call("prune", {"token": self.token, "keep": self._kept()}, timeout=600.0)
        self.journal.add("finished")

    def undo(self, reason: str) -> None:
        """Go back to what was committed; can be done again from its beginning.

        The traffic goes back first: where the disk is full, that much can be done still.

        Raises:
            ForgeError: the target is not reached; its dead-man timer, or the next command, does it then.
        """
        if self.old is not None:
            self.progress(f"going back to {self.old}")
            self._revive()
            if self.host.proxy_status().running:
                self._weigh({self.old: 100}, spares=[self.old] if self.old != self.slot else list(SLOTS))
        self.journal.add("undoing", reason=reason)
        if self.old is not None:
            config = self._committed_config()
            self._settle({self.old: 100}, config)
            if not self.host.proxy_status().running:
                with remote("host.proxy_up"):
                    self.host.proxy_up(config)
        self.host.place.call("disarm", {"token": self.token})
        if self.old != self.slot:
            if self.old is not None:
                self._drain(self.slot)
            with remote("host.stop"):
                self.host.stop(self.slot, self.pace.drain)
        self.journal.add("undone")

    # --- steps

    def _deliver(self) -> dict[str, Any]:
        return deliver(self.host.place, self.bundle, self.token, self.progress)

    def _start(self) -> dict[str, Any]:
        if self.old not in (None, self.slot) and self.host.proxy_status().running:
            # The warm server of an earlier release leaves: from here on only the active one may stand in. Where the
            # active one itself is started again, the warm one stands in for it meanwhile.
            self._weigh({self.old: 100}, spares=[self.old])
        with remote("host.start"):
            self.host.start(self.slot, self.start)
        return {"fingerprint": self.start.fingerprint}

    def _ready(self) -> dict[str, Any]:
        return {"seconds": round(wait_ready(self.host, self.slot, self.pace.ready, self.progress), 2)}

    def _prove(self) -> dict[str, Any]:
        assert self.prove is not None
        with self.host.reach(self.slot) as connection:
            return dict(self.prove(connection, self.progress))

    def _proxy(self) -> None:
        for path, text in self.files.items():
            self.host.place.call("write_file", {"token": self.token, "path": path, "text": text, "mode": 0o600})
        if self.old is None:
            self._settle({self.slot: 100})
        with remote("host.proxy_up"):
            self.host.proxy_up(self._config({self.old or self.slot: 100}))
        if self.old is None:
            self._weigh({self.slot: 100}, spares=[self.slot])

    def _weights(self) -> tuple[int, ...]:
        # Without a header that keeps a sequence on its server, two servers must not share its requests.
        stateful = self.bundle.stateful or _is_stateful(self.state)
        return (100,) if stateful and self.proxy.sequence_header is None else self.pace.weights

    def _shifter(self, weight: int) -> Callable[[], None]:
        def shift() -> None:
            assert self.old is not None
            weights, control = {**dict.fromkeys(SLOTS, 0), self.old: 100}, self.host.control()
            revert = [
                *self.host.settling(self._config({self.old: 100})),
                {"op": "weigh", "weights": weights, "spares": [self.old, self.slot], "control": control},
            ]
            self.host.place.call(
                "arm",
                {
                    "token": self.token,
                    "rollout": self.journal.rollout,
                    "seconds": self.pace.deadman,
                    "revert": revert,
                },
            )
            self._await_proxy()
            # Both are proven now, so each may stand in for the other.
            self._weigh({self.slot: weight, self.old: 100 - weight}, spares=[self.old, self.slot])

        return shift

    def _watcher(self, weight: int) -> Callable[[], dict[str, Any]]:
        def watch() -> dict[str, Any]:
            seen = self._observe()
            if seen.verdict is Verdict.FAIL:
                raise CheckFailed(f"at {weight} % the newcomer is worse: {seen.reason}")
            if seen.verdict is Verdict.INCONCLUSIVE:
                raise Inconclusive(f"at {weight} % there is no verdict: {seen.reason}")
            return {"reason": seen.reason, **seen.facts}

        return watch

    def _observe(self) -> Analysis:
        assert self.old is not None
        with self.host.reach(self.slot) as new, self.host.reach(self.old) as old:
            before = {self.slot: self._reading(self.slot, new), self.old: self._reading(self.old, old)}
            began = confirmed = time.monotonic()
            while True:
                time.sleep(min(_POLL, self.pace.hold or 0.0) or 0.01)
                clock = time.monotonic()
                if clock - confirmed > self.pace.deadman / 5:
                    self.host.place.call("confirm", {"token": self.token})
                    confirmed = clock
                status = self.host.status(self.slot)
                if not status.running or status.restarts:
                    raise CheckFailed(f"the new server ended: {status.words}")
                if clock - began < self.pace.hold:
                    continue
                now = {self.slot: self._reading(self.slot, new), self.old: self._reading(self.old, old)}
                seen = between(before[self.slot], now[self.slot])
                beside = between(before[self.old], now[self.old])
                # An old server that has ended is none to compare with, and no reason to refuse the one that stands in.
                ended = beside.problem is not None and not self.host.status(self.old).running
                verdict = judge(seen, None if ended else beside, self.pace.bounds)
                waited = clock - began >= self.pace.hold + self.pace.wait
                if verdict.verdict is not Verdict.INCONCLUSIVE or enough(seen, self.pace.bounds) or waited:
                    return verdict

    def _reading(self, slot: str, connection: Connection) -> Reading:
        proxy = self.host.place.call("proxy", {"control": self.host.control()})
        return reading(proxy, slot, metrics_text(connection))

    def _await_proxy(self) -> None:
        """Wait until the proxy's own checks have found the newcomer: what is down there gets no share of anything.

        Raises:
            CheckFailed: they do not find it.
        """
        ends = time.monotonic() + _SEEN
        while True:
            rows = self.host.place.call("proxy", {"control": self.host.control()})
            seen = [servers[self.slot]["status"] for servers in rows.values() if self.slot in servers]
            if all(any(not status.startswith(("DOWN", "MAINT")) for status in states) for states in seen):
                return
            if time.monotonic() > ends:
                found = ", ".join(sorted({status for states in seen for status in states}))
                raise CheckFailed(f"the proxy does not find {self.slot}, though it is ready", found=found)
            time.sleep(_POLL)

    def _drain(self, slot: str) -> None:
        ends = time.monotonic() + self.pace.drain
        while time.monotonic() < ends:
            rows = self.host.place.call("proxy", {"control": self.host.control()})
            if not sum(int(servers[slot]["scur"]) for servers in rows.values() if slot in servers):
                return
            time.sleep(_POLL)

    def _config(self, weights: Mapping[str, int]) -> str:
        return proxy_config(self.proxy, {name: self.host.address(name) for name in SLOTS}, weights)

    def _settle(self, weights: Mapping[str, int], config: str | None = None) -> None:
        with remote("host.settle"):
            everyone = {**dict.fromkeys(SLOTS, 0), **weights}
            self.host.settle(everyone, self._config(weights) if config is None else config, self.token)

    def _committed_config(self) -> str:
        """What the proxy's file says now, with the committed weights: a config that it refused never gets there."""
        assert self.old is not None
        there = self.host.place.call("read_file", {"path": CONFIG})
        if there is None:
            return self._config({self.old: 100})
        return with_weights(there, {**dict.fromkeys(SLOTS, 0), self.old: 100})

    def _revive(self) -> None:
        """Have the old server run, where it ended meanwhile: nothing goes back to a server that is not there."""
        assert self.old is not None and self.state.committed is not None
        if self.old == self.slot or self.host.status(self.old).running:
            return
        self.progress(f"starting {self.old} again")
        with remote("host.start"):
            self.host.start(self.old, ServerStart.from_json(self.state.committed["slots"][self.old]))
        wait_ready(self.host, self.old, self.pace.ready, self.progress)

    def _weigh(self, weights: Mapping[str, int], spares: list[str]) -> None:
        everyone = {**dict.fromkeys(SLOTS, 0), **weights}
        self.host.place.call(
            "weigh", {"token": self.token, "control": self.host.control(), "weights": everyone, "spares": spares}
        )

    def _kept(self) -> list[str]:
        """The releases that stay on the target: what runs, what ran before, and the newest of the history."""
        order = [self.bundle.release, self.state.release]
        for event in reversed(self.state.history):
            if event["outcome"] == "deployed":
                order.append(str(event["release"]))
        slots = (self.state.committed or {}).get("slots", {})
        running = [str(item["release"]) for name, item in slots.items() if name != self.slot]
        newest = [release for release in dict.fromkeys(order) if release is not None][: self.pace.retention]
        return list(dict.fromkeys([*newest, *running]))


def wait_ready(host: Host, slot: str, seconds: float, progress: Progress) -> float:
    """Wait until a slot's server says that it is ready; how long that took.

    Raises:
        CheckFailed: it ended, or is not ready in time; with the end of its log.
    """
    import httpx

    began = time.monotonic()
    with host.reach(slot) as connection:
        while True:
            try:
                if httpx.get(f"{connection.http_url}/v2/health/ready", timeout=5).status_code == 200:
                    return time.monotonic() - began
            except httpx.HTTPError:
                pass
            status = host.status(slot)
            waited = time.monotonic() - began
            ended = not status.running or status.restarts > 0
            if ended or waited > seconds:
                why = f"ended: {status.words}" if ended else f"was not ready within {seconds:g} s"
                raise CheckFailed(f"the new server {why}", details=log_end(host, slot))
            time.sleep(_POLL)


def log_end(host: Host, slot: str, lines: int = 200) -> list[str]:
    """What a server's log says last: why models did not load, else its errors."""
    from tritonforge.triton import serverlog

    try:
        text = "\n".join(host.logs(slot, lines, False))
    except ForgeError:
        return []
    failures = serverlog.load_failures(text)
    if failures:
        return [f"{model}: {reason}" for model, reason in sorted(failures.items())]
    return list(serverlog.last_errors(text)) or text.splitlines()[-3:]


def metrics_text(connection: Connection) -> str | None:
    """A server's Prometheus text; None where it cannot be had."""
    import httpx

    if connection.metrics is None:
        return None
    try:
        answer = httpx.get(f"http://{connection.metrics}/metrics", timeout=5)
        answer.raise_for_status()
    except httpx.HTTPError:
        return None
    return answer.text


def proxy_digest(host: Host, proxy: ProxySettings) -> str:
    """Equal for equal proxies, whatever their weights."""
    return digest_bytes(proxy_config(proxy, {name: host.address(name) for name in SLOTS}, {}).encode())


def free_slot(state: TargetState) -> str:
    """The slot that a newcomer takes: the one that does not serve."""
    active = None if state.committed is None else state.committed["active"]
    return next(slot for slot in SLOTS if slot != active)


def _is_stateful(state: TargetState) -> bool:
    committed = state.committed
    if committed is None:
        return False
    return bool(committed["slots"][committed["active"]]["document"]["stateful"])


def _summary(bundle: Bundle) -> dict[str, Any]:
    """What status, diff and history want to know of a release when it is not at hand."""
    return {
        "name": bundle.document.get("name"),
        "stateful": bundle.stateful,
        "models": [
            {name: entry[name] for name in ("folder", "name", "version", "backend", "config", "artifact", "kind")}
            for entry in bundle.document.get("models", [])
        ],
    }


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
