import json
from pathlib import Path

import pytest
from chassis.endpoint import EndpointFile, join, to_dial


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "127.0.0.1:5"),
        ("example.org", "example.org:5"),
        ("0.0.0.0", "127.0.0.1:5"),
        ("::", "[::1]:5"),
        ("[::]", "[::1]:5"),
        ("fe80::1", "[fe80::1]:5"),
    ],
)
def test_a_client_on_this_machine_dials_an_address_it_can_reach(host: str, expected: str) -> None:
    assert to_dial(host, 5) == expected


def test_an_address_to_listen_on_is_kept() -> None:
    assert join("0.0.0.0", 5) == "0.0.0.0:5"
    assert join("::", 5) == "[::]:5"


def test_the_file_appears_whole_and_goes(tmp_path: Path) -> None:
    file = EndpointFile(str(tmp_path / "new" / "endpoint.json"))
    file.write({"grpc": "a:1", "metrics": "a:2"})
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["endpoint.json"]
    assert json.loads((tmp_path / "new" / "endpoint.json").read_text()) == {"grpc": "a:1", "metrics": "a:2"}
    file.add({"http": "a:3"})
    assert json.loads((tmp_path / "new" / "endpoint.json").read_text())["http"] == "a:3"
    file.remove()
    file.remove()
    assert list((tmp_path / "new").iterdir()) == []


def test_no_file_is_written_unless_wanted() -> None:
    file = EndpointFile("")
    file.write({"grpc": "a:1"})
    file.add({"http": "a:3"})
    file.remove()
