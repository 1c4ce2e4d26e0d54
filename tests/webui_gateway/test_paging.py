"""Pages of lists that change between the calls."""

from dataclasses import dataclass

import pytest
from webui_gateway.paging import PageTokenInvalid, page


@dataclass(frozen=True)
class Entry:
    name: str


def entries(*names: str) -> list[Entry]:
    return [Entry(name) for name in names]


def test_pages_join_to_the_whole_list() -> None:
    first, token = page(entries("a", "b", "c"), 2, "")
    second, end = page(entries("a", "b", "c"), 2, token)
    assert [e.name for e in (*first, *second)] == ["a", "b", "c"]
    assert end == ""


def test_nothing_is_shown_twice_when_entries_come_and_go() -> None:
    _, token = page(entries("b", "c", "d"), 2, "")
    rest, _ = page(entries("a", "b", "d"), 2, token)
    assert [e.name for e in rest] == ["d"]


def test_a_full_last_page_has_no_token() -> None:
    assert page(entries("a", "b"), 2, "")[1] == ""
    assert page([], 0, "") == ([], "")


@pytest.mark.parametrize("token", ["x", "/w==", "ü"])
def test_a_foreign_token_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        page(entries("a"), 2, token)
