"""docs/grpc.md names every service and every call of the contracts, and no others."""

import re
from pathlib import Path

from darkroom.captioner.v1 import service_pb2
from darkroom.converter.v1 import converter_pb2
from darkroom.trainer.v1 import session_pb2, training_pb2
from darkroom.webui.v1 import generation_pb2, registry_pb2

PAGE = Path(__file__).parents[2] / "docs" / "grpc.md"
MODULES = (service_pb2, converter_pb2, session_pb2, training_pb2, generation_pb2, registry_pb2)


def test_the_table_lists_all_calls() -> None:
    listed = {
        service: set(re.findall(r"\w+", calls))
        for service, calls in re.findall(r"^\| `(darkroom\.[\w.]+)` \| \d+ \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    }
    contracts = {
        service.full_name: {method.name for method in service.methods}
        for module in MODULES
        for service in module.DESCRIPTOR.services_by_name.values()
    }
    assert listed == contracts
