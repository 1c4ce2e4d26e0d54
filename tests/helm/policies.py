"""What NetworkPolicies let through: the rules of Kubernetes, applied to made-up pods and addresses."""

import ipaddress
from dataclasses import dataclass, field
from typing import Any

from tests.helm.chart import Object

Selector = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address outside the cluster if it has no namespace."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = field(default_factory=dict, hash=False)
    address: str = "10.244.0.5"


def allows(policies: list[Object], source: End, target: End, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection is let through: out of the source and into the target."""
    out = _side(policies, "Egress", source, target, port, protocol)
    return out and _side(policies, "Ingress", target, source, port, protocol)


def _side(policies: list[Object], direction: str, pod: End, other: End, port: int, protocol: str) -> bool:
    """One direction at one pod: everything where no policy selects it, else what some policy allows."""
    if not pod.namespace:
        return True
    selecting = [
        policy
        for policy in policies
        if policy["metadata"]["namespace"] == pod.namespace
        and direction in policy["spec"]["policyTypes"]
        and _matches(policy["spec"]["podSelector"], pod.labels)
    ]
    rules = [
        (policy["metadata"]["namespace"], rule)
        for policy in selecting
        for rule in policy["spec"].get(direction.lower()) or ()
    ]
    return not selecting or any(_rule(home, rule, direction, other, port, protocol) for home, rule in rules)


def _rule(home: str, rule: Object, direction: str, other: End, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    if ports and not any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports):
        return False
    peers = rule.get("to" if direction == "Egress" else "from")
    return not peers or any(_peer(home, peer, other) for peer in peers)


def _peer(home: str, peer: Object, other: End) -> bool:
    if "ipBlock" in peer:
        network = ipaddress.ip_network(peer["ipBlock"]["cidr"])
        return not other.namespace and ipaddress.ip_address(other.address) in network
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        is_there = _matches(peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace})
    else:
        is_there = other.namespace == home
    return is_there and _matches(peer.get("podSelector", {}), other.labels)


def _matches(selector: Selector, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"the test does not know {selector}"
    wanted: dict[str, str] = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items()
