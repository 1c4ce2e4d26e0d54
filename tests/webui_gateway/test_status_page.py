"""Pages for people: they say what is here, and nothing in them is fetched from elsewhere."""

import re
from typing import Any

import pytest
from webui_gateway.status_page import render_routes


async def test_every_route_is_listed_with_what_it_does(start: Any, a1111: Any) -> None:
    async with start(a1111.address) as up:
        page = (await up.http.get("/docs")).text
        paths = (await up.http.get("/openapi.json")).json()["paths"]
        assert {"/sdapi/v1/txt2img", "/darkroom/v1/jobs/{job_id}", "/controlnet/detect"} <= set(paths)
        for path, methods in paths.items():
            assert path in page
            assert all(operation["description"] for operation in methods.values()), path


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_need_no_network(start: Any, a1111: Any, path: str) -> None:
    async with start(a1111.address) as up:
        page = await up.http.get(path)
        assert page.headers["content-type"].startswith("text/html")
        assert not re.search(r"<script|<link|<img|url\(|@import", page.text)
        assert all(target.startswith("/") for target in re.findall(r'(?:src|href)="([^"]*)"', page.text))


def test_what_comes_from_outside_is_escaped() -> None:
    page = render_routes({"/<b>": {"get": {"description": "<script>"}}})
    assert "&lt;b&gt;" in page
    assert "<script>" not in page
