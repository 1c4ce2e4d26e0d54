"""Services, Ingresses and routes lead to what the contracts and the programs have."""

import pytest
from darkroom.captioner.v1 import service_pb2
from darkroom.converter.v1 import converter_pb2
from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom.webui.v1 import generation_pb2, registry_pb2

from tests.helm import chart, helm_binary
from tests.helm.chart import CHART, Object

MODULES = {
    "captioner": (service_pb2,),
    "trainer": (session_pb2, training_pb2),
    "converter": (converter_pb2,),
    "webui-gateway": (generation_pb2, registry_pb2),
}


def contracts() -> dict[str, str]:
    """The Service that each gRPC service is behind."""
    return {
        service.full_name: f"demo-darkroom-{component}"
        for component, modules in MODULES.items()
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
    }


def services(objects: list[Object]) -> dict[str, Object]:
    """Services by name."""
    return {item["metadata"]["name"]: item["spec"] for item in objects if item["kind"] == "Service"}


def test_the_ingress_for_grpc_knows_every_service_of_the_contracts() -> None:
    (rule,) = chart.find(chart.rendered("everything"), "Ingress", "grpc")["spec"]["rules"]
    paths = {path["path"].removeprefix("/"): path["backend"]["service"]["name"] for path in rule["http"]["paths"]}
    assert paths == contracts()


def test_the_route_for_grpc_too() -> None:
    route = chart.find(chart.rendered("everything"), "GRPCRoute", "grpc")["spec"]
    routed = {rule["matches"][0]["method"]["service"]: rule["backendRefs"][0]["name"] for rule in route["rules"]}
    assert routed == contracts()


def test_only_what_is_installed_is_routed() -> None:
    (rule,) = chart.find(chart.rendered("few"), "Ingress", "grpc")["spec"]["rules"]
    assert {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} == {"demo-darkroom-webui-gateway"}


def test_ports_of_services_are_ports_of_their_pods() -> None:
    for name in chart.VALUE_SETS:
        objects = chart.rendered(name)
        pods = list(chart.pods(objects))
        for service, spec in services(objects).items():
            selected = [pod for pod in pods if spec["selector"].items() <= pod.labels.items()]
            assert len(selected) == 1, service
            ports = {port["name"] for port in selected[0].main["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports, service


def test_backends_are_ports_of_services() -> None:
    objects = chart.rendered("everything")
    known = services(objects)
    for ingress in (item for item in objects if item["kind"] == "Ingress"):
        for path in ingress["spec"]["rules"][0]["http"]["paths"]:
            backend = path["backend"]["service"]
            assert backend["port"]["name"] in {port["name"] for port in known[backend["name"]]["ports"]}
    for route in (item for item in objects if item["kind"].endswith("Route")):
        for rule in route["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                assert backend["port"] in {port["port"] for port in known[backend["name"]]["ports"]}


def test_clients_can_balance_over_all_pods() -> None:
    known = services(chart.rendered("minimal"))
    for component in MODULES:
        headless = known[f"demo-darkroom-{component}-headless"]
        assert headless["clusterIP"] == "None"
        assert headless["selector"] == known[f"demo-darkroom-{component}"]["selector"]


def test_the_certificate_has_the_names_that_clients_dial() -> None:
    names = set(chart.find(chart.rendered("everything"), "Certificate", "tls")["spec"]["dnsNames"])
    for service in (name for name in services(chart.rendered("everything")) if "webui-engine" not in name):
        assert {service, f"{service}.{chart.NAMESPACE}.svc", f"{service}.{chart.NAMESPACE}.svc.cluster.local"} <= names
    assert "darkroom.example.org" in names


def test_the_smoke_test_asks_services_that_exist() -> None:
    known = services(chart.rendered("minimal"))
    for argument in chart.pod(chart.rendered("minimal"), "test").main["args"][1:]:
        host, _, port = argument.partition("=")[2].removeprefix("http://").partition(":")
        assert int(port) in {one["port"] for one in known[host]["ports"]}


def notes_of(values: str, *arguments: str) -> str:
    """What `helm install` prints at its end."""
    command = ("install", "studio", CHART, "--namespace", "n", "--dry-run=client")
    done = helm_binary.run(*command, "--values", CHART / f"ci/{values}-values.yaml", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@pytest.mark.parametrize(
    ("values", "arguments", "is_advised"),
    [
        ("minimal", (), True),
        ("minimal", ("--set=trainer.namespace=training",), False),
        ("trial", (), False),  # its Secret is in the release's namespace alone
        ("few", (), False),
    ],
)
def test_the_notes_advise_a_namespace_for_training(values: str, arguments: tuple[str, ...], is_advised: bool) -> None:
    assert ("one of their own by trainer.namespace" in notes_of(values, *arguments)) is is_advised


def test_the_notes_tell_three_commands_that_fit() -> None:
    notes = notes_of("minimal")
    commands = [line.strip() for line in notes.splitlines() if line.startswith("     ")]
    assert [command.split()[0] for command in commands] == ["helm", "kubectl", "kubectl"]
    assert "secret studio-darkroom-token --namespace n" in commands[1]
    assert "service/studio-darkroom-webui-gateway" in commands[2]
