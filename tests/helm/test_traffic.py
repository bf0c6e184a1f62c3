"""Who gets requests: Services, the proxy's weights, routes of a Gateway."""

from __future__ import annotations

import re
from typing import Any

import pytest

from helm.chart import NAME, Refusal, merged, render
from helm.combinations import BOTH, GATEWAY, KEEPER, PROXY


def test_without_a_proxy_the_service_is_the_slot_with_the_traffic(helm: str) -> None:
    for traffic, slot in (({"blue": 100, "green": 0}, "blue"), ({"blue": 0, "green": 100}, "green")):
        service = render(merged(BOTH, {"traffic": traffic})).one("Service")["spec"]
        assert service["selector"]["tritonforge.dev/slot"] == slot


def test_with_a_proxy_the_service_is_the_proxy(helm: str) -> None:
    selector = render(merged(BOTH, PROXY)).one("Service")["spec"]["selector"]
    assert selector["app.kubernetes.io/component"] == "proxy"
    assert "tritonforge.dev/slot" not in selector


def test_the_addresses_of_slots_stay_also_where_a_slot_does_not_run(helm: str) -> None:
    alone = render()
    for suffix in ("-blue", "-blue-headless", "-green", "-green-headless"):
        assert alone.one("Service", suffix) == render(BOTH).one("Service", suffix)
        assert [port["port"] for port in alone.one("Service", suffix)["spec"]["ports"]] == [8000, 8001, 8002]


def test_a_proxy_begins_with_the_committed_weights(helm: str) -> None:
    config = render(merged(BOTH, PROXY, {"traffic": {"blue": 90, "green": 10}})).haproxy()
    for port in (8000, 8001):
        for slot, weight in (("blue", 90), ("green", 10)):
            variable = f"SHOP_TRITONFORGE_{slot.upper()}_SERVICE_HOST"
            assert re.search(rf'^ +server {slot} "\${{{variable}}}":{port} .*\bweight {weight}\b', config, re.M), config


def test_weights_and_slots_change_in_running_proxies(helm: str) -> None:
    """Neither a change of weights nor one of the slots may restart the proxies: their connections would be lost."""
    proxies = [
        render(merged(BOTH, PROXY, KEEPER, change)).one("Deployment", "-proxy")
        for change in (
            {},
            {"traffic": {"blue": 0, "green": 100}},
            {"slots": {"green": {"release": "c" * 64, "replicas": 3}}},
            {"slots": {"green": {"enabled": False}}},
            {"server": {"arguments": ["--log-verbose=1"]}, "image": {"tag": "25.01-py3"}},
        )
    ]
    assert all(proxy == proxies[0] for proxy in proxies)
    other = render(merged(BOTH, PROXY, KEEPER, {"proxy": {"timeouts": {"server": 5}}}))
    assert other.one("Deployment", "-proxy") != proxies[0], "a change that does need a restart makes one"


def test_discovery_by_name_has_a_server_a_pod(helm: str) -> None:
    config = render(merged(BOTH, PROXY, {"proxy": {"discovery": "dns", "maxPods": 5}})).haproxy()
    assert f"server-template blue 1-5 {NAME}-blue-headless.shop.svc.cluster.local:8000 weight 100" in config
    assert f"server-template green 1-5 {NAME}-green-headless.shop.svc.cluster.local:8001 weight 0" in config
    assert "SERVICE_HOST" not in config


def test_proxies_drain_before_they_stop(helm: str) -> None:
    values = merged(PROXY, {"proxy": {"shutdown": {"drainSeconds": 7, "hardStopSeconds": 11}}})
    pod = render(values).pod("-proxy")
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] == "sleep 7 && kill -USR1 1 && sleep 11"
    assert pod["terminationGracePeriodSeconds"] > 7 + 11
    assert "hard-stop-after 11s" in render(values).haproxy()


def test_only_the_keeper_reaches_the_proxies_control(helm: str) -> None:
    rendered = render(merged(PROXY, KEEPER))
    rules = rendered.one("NetworkPolicy", "-proxy")["spec"]["ingress"]
    control = [rule for rule in rules if any(port["port"] == 9999 for port in rule["ports"])]
    (peers,) = [rule["from"] for rule in control]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers] == ["keeper"]
    assert all(rule["ports"] for rule in rules), "a rule without ports would open the control port as well"
    service = rendered.one("Service", "-proxy-control")["spec"]
    assert service["clusterIP"] == "None"
    assert service["ports"][0]["port"] == 9999


def test_clients_reach_servers_past_the_proxy_only_where_there_is_none(helm: str) -> None:
    def open_ports(values: dict[str, Any]) -> set[int]:
        rules = render(values).one("NetworkPolicy", "-server")["spec"]["ingress"]
        return {port["port"] for rule in rules if "from" not in rule for port in rule["ports"]}

    assert open_ports({}) == {8000, 8001, 8002}
    assert open_ports(PROXY) == {8002}


def test_a_gateway_gets_the_same_weights_for_both_protocols(helm: str) -> None:
    traffic = {"traffic": {"blue": 75, "green": 25}}
    both = render(merged(BOTH, GATEWAY, traffic))
    assert both.of_kind("GRPCRoute") == []
    for rule, port in zip(both.one("HTTPRoute")["spec"]["rules"], (8000, 8001), strict=True):
        assert rule["backendRefs"] == [
            {"name": f"{NAME}-blue", "port": port, "weight": 75},
            {"name": f"{NAME}-green", "port": port, "weight": 25},
        ]
    apart = render(merged(BOTH, GATEWAY, traffic, {"gatewayAPI": {"grpc": {"hostnames": ["g.example"]}}}))
    assert len(apart.one("HTTPRoute")["spec"]["rules"]) == 1
    route = apart.one("GRPCRoute")["spec"]
    assert route["hostnames"] == ["g.example"]
    assert all(len(rule["matches"]) <= 8 for rule in route["rules"])
    assert {ref["weight"] for rule in route["rules"] for ref in rule["backendRefs"]} == {75, 25}


def test_a_gateway_leads_to_no_control_endpoint(helm: str) -> None:
    rules = render(merged(BOTH, GATEWAY)).one("HTTPRoute")["spec"]["rules"]
    paths = [match["path"]["value"] for rule in rules for match in rule["matches"]]
    assert not any("/v2/repository".startswith(path) for path in paths if path != "/v2")
    assert {"type": "Exact", "value": "/v2"} in [match["path"] for rule in rules for match in rule["matches"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"traffic": {"blue": 50, "green": 50}}, "traffic.green is 50, but slots.green.enabled is false"),
        (merged(BOTH, {"traffic": {"blue": 50, "green": 50}}), "nothing splits it: set proxy.enabled or gatewayAPI"),
        ({"traffic": {"blue": 0}}, "traffic.blue and traffic.green are both 0"),
        (merged(PROXY, GATEWAY), "proxy.enabled and gatewayAPI.enabled are both true"),
        ({"gatewayAPI": {"enabled": True}}, "gatewayAPI.enabled needs gatewayAPI.parentRefs"),
        (merged(PROXY, {"proxy": {"sequenceHeader": "x-seq"}}), "proxy.sequenceHeader needs proxy.replicas: 1"),
        (
            merged(PROXY, {"proxy": {"sequenceHeader": "x", "replicas": 1}, "slots": {"blue": {"replicas": 2}}}),
            "needs proxy.discovery: dns",
        ),
        (
            merged(PROXY, {"proxy": {"discovery": "dns", "maxPods": 2}, "slots": {"blue": {"replicas": 3}}}),
            "a slot may have 3 pods, but proxy.maxPods is 2",
        ),
        ({"proxy": {"tls": {"secretName": "cert"}}}, "proxy.enabled is false: nothing would ask for them"),
    ],
)
def test_what_would_lose_requests_is_refused(helm: str, values: dict[str, Any], message: str) -> None:
    with pytest.raises(Refusal, match=re.escape(message)):
        render(values)


def test_with_no_slot_yet_only_the_keeper_and_the_addresses_are_there(helm: str) -> None:
    rendered = render(merged(PROXY, KEEPER, {"slots": {"blue": {"enabled": False}}}))
    assert rendered.names("Deployment") == [f"{NAME}-keeper", f"{NAME}-proxy"]
    assert rendered.names("PersistentVolumeClaim") == [f"{NAME}-models"]
