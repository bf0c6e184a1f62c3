"""Kubernetes by Helm: the chart's two slots, its proxies and its keeper in one namespace."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tritonforge.errors import CheckFailed, EnvironmentLacks
from tritonforge.rollout.agent import AGENT
from tritonforge.rollout.host import SLOTS, Address, ProxyStatus, ServerStart, ServerStatus
from tritonforge.rollout.lock import target_lock
from tritonforge.rollout.points import remote
from tritonforge.rollout.targets.helm_adoption import Guests, adopted_selector, adopted_slot, foreign_service
from tritonforge.rollout.targets.helm_differences import value_differences
from tritonforge.rollout.targets.helm_installation import IMAGE, START, Installation, serving, stopped
from tritonforge.rollout.targets.helm_program import HelmProgram
from tritonforge.rollout.targets.helm_release import HelmRelease
from tritonforge.rollout.targets.helm_values import Values, at, fit_traffic, image_parts, marks
from tritonforge.rollout.targets.kubernetes_api import Cluster
from tritonforge.rollout.targets.kubernetes_forward import Forwarding
from tritonforge.rollout.targets.kubernetes_keeper import KeeperPlace
from tritonforge.rollout.targets.kubernetes_pods import PodState, image_in_words, slot_words
from tritonforge.rollout.targets.kubernetes_routes import RoutedPlace
from tritonforge.rollout.targets.kubernetes_secrets import apply_proxy_file
from tritonforge.rollout.targets.kubernetes_workloads import Workloads, follow_logs, pod_logs
from tritonforge.triton.connection import Connection, Tls

HTTP, GRPC, METRICS = 8000, 8001, 8002


class HelmHost:
    """One Helm release. What Helm has deployed is where everything begins: a change alters that and nothing else."""

    def __init__(
        self,
        installation: Installation,
        program: HelmProgram,
        cluster: Cluster,
        progress: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.installation = installation
        self.cluster = cluster
        self.release = HelmRelease(installation.name, program, cluster, installation.chart)
        self.workloads = Workloads(cluster, installation.name, installation.fullname, installation.workload)
        self.guests = Guests(cluster, self.workloads, self.release.values)
        self._progress = progress
        title = f"{installation.name} at {cluster.title}"
        kind = RoutedPlace if installation.gateway else KeeperPlace
        self.place: KeeperPlace = kind(cluster, title, self._keeper_pods, self.control, self._secret)
        if isinstance(self.place, RoutedPlace):
            self.place.serve(self.workloads, installation.fullname)

    # --- what outlives rollouts

    def prepare(self) -> None:
        self._healed()
        now = self.release.values()
        current = AGENT.read_text(encoding="utf-8")
        pods = self._keeper_pods()
        running = pods is not None and any(pod.ready for pod in pods)
        if running and now is not None and at(now, "keeper.agent") == current:
            return
        wanted = self.installation.wanted(now, self._keeper_image(now, running))
        if running:
            with target_lock(self.place, "renewing the keeper"):
                self._apply(wanted, "the keeper is renewed")
                self.place.close()
                self._await_keeper()
        else:
            self._progress("installing the keeper")
            self._apply(wanted, "the keeper is installed")
            self._await_keeper()

    def resolve_image(self) -> str | None:
        name = self.installation.image
        if "@" in name:
            return name
        # The keeper runs in the same image: its node knows which one the tag was.
        now = self.release.values()
        if now is not None and at(now, "keeper.image") == image_parts(name):
            for pod in self._keeper_pods() or []:
                digest = (pod.image or "").partition("@")[2]
                if pod.ready and digest:
                    return f"{name}@{digest}"
        return name

    def settings(self) -> Mapping[str, Any]:
        return {"chart": self.installation.version, **marks(self.installation.effective)}

    def differences(self, start: ServerStart) -> list[str]:
        """What a start would change in the chart's values, a line each; nothing of it is a secret."""
        now = self.release.values()
        if now is None:
            return [f"Helm release {self.installation.name} would be installed in {self.cluster.access.namespace}"]
        return value_differences(self.installation, now, start.arguments)

    # --- slots

    def start(self, slot: str, start: ServerStart) -> None:
        self._healed()
        now = self.release.values()
        if now is None:
            raise EnvironmentLacks(f"{self.place.title} is not installed", hint="`tritonforge deploy` installs it")
        status = self.status(slot)
        same = status.fingerprint == start.fingerprint
        if same and status.running:
            return
        if "adopted" in (start.settings or {}):
            raise CheckFailed(
                "the server that was adopted does not serve in the target any more, so nothing can go back to it",
                found=status.words,
                hint="deploy a release of the spec instead",
            )
        if not same and at(now, f"slots.{slot}.enabled"):
            self.stop(slot, 10.0)
            now = self.release.values() or now
        values = self.installation.wanted(now, at(now, "keeper.image") or {})
        values["slots"][slot] = self._slot(slot, start)
        fit_traffic(values)
        self._apply(values, f"{slot} starts with release {start.release[:12]}", force=same)

    def stop(self, slot: str, grace: float) -> None:
        self._healed()
        now = self.release.values()
        if now is not None and (at(now, f"slots.{slot}.enabled") or adopted_selector(now, slot)):
            values = copy.deepcopy(now)
            values["slots"][slot] = stopped(values["slots"][slot])
            fit_traffic(values)
            self._apply(values, f"{slot} stops")
        self.workloads.await_gone(slot, grace)

    def status(self, slot: str) -> ServerStatus:
        workload = self.workloads.workload(slot)
        if workload is None:
            return self.guests.status(slot)
        notes: Mapping[str, str] = workload["metadata"].get("annotations") or {}
        fingerprint = notes.get(START)
        pods = self.workloads.pods(slot, {START: fingerprint} if fingerprint else {})
        ready = [pod for pod in pods if pod.ready]
        refused = self.workloads.refused(workload)
        hopeless = bool(refused and not pods) or (any(self.workloads.is_hopeless(pod) for pod in pods) and not ready)
        words = refused if refused and not pods else slot_words(pods)
        if workload["spec"].get("replicas") == 0:
            hopeless, words = True, "scaled to no pods"
        first = ready[0] if ready else next(iter(pods), None)
        return ServerStatus(
            not hopeless,
            fingerprint,
            notes.get("tritonforge.dev/release"),
            image_in_words(notes.get(IMAGE), first),
            None if first is None else first.started,
            max((pod.restarts for pod in pods), default=0),
            words,
        )

    @contextmanager
    def reach(self, slot: str) -> Iterator[Connection]:
        if self.guests.labels(slot):
            with self.guests.reach_slot(slot) as connection:
                yield connection
            return
        with Forwarding(self.cluster, lambda: self._pick(slot)) as forwarding:
            yield Connection(
                forwarding.port(HTTP),
                forwarding.port(GRPC),
                forwarding.metrics(lambda: [pod.name for pod in self.workloads.pods(slot) if pod.ready], METRICS),
            )

    # --- a Triton that runs already

    @contextmanager
    def reach_foreign(self, name: str) -> Iterator[tuple[Connection, str, tuple[str, ...]]]:
        """The Triton behind a Service that is to be adopted: its address, its image and its command."""
        guest = foreign_service(self.cluster, name, self.installation.name)
        with self.guests.reach(guest.selector, guest.ports) as connection:
            yield connection, guest.image, guest.arguments

    def adopt(self, slot: str, name: str, start: ServerStart) -> None:
        """Have the Service's pods serve in a slot; nothing of them is restarted or changed."""
        self._healed()
        now = self.release.values()
        guest = foreign_service(self.cluster, name, self.installation.name)
        values = self.installation.wanted(now, at(now or {}, "keeper.image") or {})
        notes = {START: start.fingerprint, IMAGE: start.image or ""}
        given = at(self.installation.values, f"slots.{slot}") or {}
        values["slots"][slot] = adopted_slot(guest, given, notes, start.release)
        fit_traffic(values)
        self._apply(values, f"{slot} adopts {name}")

    # --- the proxy

    def address(self, slot: str) -> Address:
        return Address(f"{self.installation.fullname}-{slot}", HTTP, GRPC, METRICS)

    def control(self) -> list[str]:
        if self.installation.gateway:
            return []
        return [f"{pod.ip}:9999" for pod in self.workloads.component("proxy") if pod.ip and pod.ran and not pod.leaving]

    def proxy_up(self, config: str) -> None:
        self._healed()
        before = self.release.values()
        assert before is not None
        values = copy.deepcopy(before)
        if self.installation.gateway:
            values["gatewayAPI"] = self.installation.routing()
            self._apply(values, "routes are there")
            return
        values["proxy"] = self.installation.proxy(_mark(config))
        self._apply(values, "the proxies run")
        problem = self.workloads.await_rollout(f"{self.installation.fullname}-proxy", "proxy", 180.0)
        if problem is not None:
            self._apply(before, "the proxies are as they were")
            raise CheckFailed("the proxies do not start", details=[problem, *list(self.logs("proxy", 5, False))[-5:]])

    def settle(self, weights: Mapping[str, int], config: str, token: str) -> None:
        self._healed()
        now = self.release.values()
        if now is None:
            return
        values = {**copy.deepcopy(now), "traffic": {slot: int(weights.get(slot, 0)) for slot in SLOTS}}
        fit_traffic(values)
        self._apply(values, "traffic is committed")

    def settling(self, config: str) -> list[dict[str, Any]]:
        return []  # the keeper has no helm: it moves the proxies' weights, and what they begin with stays

    def proxy_status(self) -> ProxyStatus:
        if self.installation.gateway:
            route = self.workloads.route()
            words = "no proxy: routes of the Gateway API" if route else "no routes yet"
            return ProxyStatus(route is not None, None, words)
        pods = self.workloads.component("proxy")
        ready = [pod for pod in pods if pod.ready]
        image = ready[0].image if ready else None
        return ProxyStatus(bool(ready), image, slot_words(pods) if pods else "not running")

    @contextmanager
    def public(self) -> Iterator[Connection]:
        def proxy() -> str | None:
            return next((pod.name for pod in self.workloads.component("proxy") if pod.ready), None)

        if self.installation.gateway:
            with self.reach(self._serving()) as connection:
                yield connection
            return
        with Forwarding(self.cluster, proxy) as forwarding:
            tls = Tls() if self.installation.tls else None
            yield Connection(
                forwarding.port(HTTP),
                forwarding.port(GRPC),
                forwarding.metrics(lambda: [pod.name for pod in self.workloads.pods(self._serving())], METRICS),
                tls=tls,
            )

    # --- the rest

    def logs(self, unit: str, tail: int, follow: bool) -> Iterator[str]:
        pods = self.workloads.pods(unit) if unit in SLOTS else self.workloads.component(unit)
        container = "triton" if unit in SLOTS else "haproxy" if unit == "proxy" else unit
        if unit in SLOTS and not pods and self.guests.labels(unit):
            pods, container = self.guests.logged(unit)
        for pod in pods:
            prefix = f"{pod.name}: " if len(pods) > 1 else ""
            for line in pod_logs(self.cluster, pod, container, tail):
                yield prefix + line
        if follow and pods:
            yield from follow_logs(self.cluster, pods[-1], container)

    def remove(self, *, claim: bool = False) -> None:
        """Uninstall it. The claim with releases and journal stays, unless ``claim``."""
        self._healed()
        with remote("helm.uninstall"):
            self.release.uninstall()
        for name in ("tls", "clients", "tokens"):
            self.cluster.delete(self.cluster.path("secrets", f"{self.installation.fullname}-proxy-{name}"))
        if claim and self.installation.claim is None:
            self.cluster.delete(self.cluster.path("persistentvolumeclaims", f"{self.installation.fullname}-models"))

    def close(self) -> None:
        self.place.close()
        self.cluster.close()

    def _apply(self, values: Values, what: str, *, force: bool = False) -> None:
        """One change by Helm, whose description says for which rollout and what serves then."""
        active = serving(values)
        release = str(at(values, f"slots.{active}.release") or "")[:12]
        rollout = f" {self.place.rollout}" if self.place.rollout else ""
        text = f"tritonforge{rollout}: {what}; {active} serves {release or 'nothing yet'}"
        with remote("helm.upgrade"):
            self.release.apply(values, text, force=force)

    def _healed(self) -> None:
        note = self.release.heal(ours=self.place.token is not None)
        if note is not None:
            self._progress(note)
            self.place.notes.append(note)

    def _slot(self, slot: str, start: ServerStart) -> Values:
        """The values of one slot; those that an earlier start had, where this is that start again."""
        if dict(start.settings or {}) != dict(self.settings()):
            for values in self.release.earlier():
                for name in SLOTS:
                    there = at(values, f"slots.{name}") or {}
                    if (there.get("annotations") or {}).get(START) == start.fingerprint:
                        return {**copy.deepcopy(there), "enabled": True}
        return self.installation.slot(slot, start)

    def _serving(self) -> str:
        return serving(self.release.values() or {})

    def _pick(self, slot: str) -> str | None:
        """The pod to speak to: one that is not ready yet where there is any, so that all must be before the slot is."""
        workload = self.workloads.workload(slot)
        if workload is None:
            return None
        mark = (workload["metadata"].get("annotations") or {}).get(START)
        pods = [pod for pod in self.workloads.pods(slot, {START: mark} if mark else {}) if not pod.leaving]
        if len(pods) < int(workload["spec"].get("replicas") or 1):
            return None
        found = sorted(pods, key=lambda pod: (pod.ready, pod.name))
        return found[0].name if found and found[0].ip else None

    def _keeper_pods(self) -> list[PodState] | None:
        return self.workloads.component("keeper") or (
            [] if self.workloads.exists(f"{self.installation.fullname}-keeper") else None
        )

    def _keeper_image(self, now: Mapping[str, Any] | None, running: bool) -> Mapping[str, Any]:
        """One that runs keeps its image: a serving image that cannot be had must not take the journal away."""
        given = at(self.installation.values, "keeper.image")
        if given:
            return dict(given)
        there = at(now or {}, "keeper.image")
        return dict(there) if running and there else image_parts(self.installation.image)

    def _await_keeper(self) -> None:
        problem = self.workloads.await_rollout(f"{self.installation.fullname}-keeper", "keeper", 300.0)
        if problem is not None:
            raise EnvironmentLacks(
                "the keeper does not start",
                found=problem,
                hint="the chart's values `keeper.*`, `models.pvc.*` and `imagePullSecrets` say what it needs",
            )
        ends = time.monotonic() + 30
        while not self.place.call("read")["watching"]:
            if time.monotonic() > ends:
                raise EnvironmentLacks("the target's dead-man timer does not start")
            time.sleep(0.5)

    def _secret(self, path: str, text: str) -> None:
        apply_proxy_file(self.cluster, self.installation.fullname, path, text)


def _mark(config: str) -> str | None:
    """What the config's first line says of its certificates and tokens."""
    first = config.partition("\n")[0]
    return first.rpartition(": ")[2] if first.startswith("# certificates and tokens: ") else None
