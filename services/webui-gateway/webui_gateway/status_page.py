"""Pages for people: back ends, queue and models at a glance at /, every route at /docs. Plain HTML, drawn by `http_api`."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Final

from webui_gateway.gateway import Gateway

_RELOAD_SECONDS: Final = 15
_SHOWN_JOBS: Final = 15
_STYLE: Final = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin: 0; } h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; font-weight: normal; }
th { opacity: .6; font-size: .85rem; } code { font-size: .9rem; overflow-wrap: anywhere; } .quiet { opacity: .6; }
"""


def render(gateway: Gateway) -> str:
    """The page. Everything that comes from outside is escaped."""
    at_hand = [model for model in gateway.models.all() if model.available]
    jobs = gateway.jobs.all()[: -_SHOWN_JOBS - 1 : -1]
    sections = [
        _table(
            "Back ends",
            ("url", "state"),
            [(each.url, "answers" if each.alive else each.trouble) for each in gateway.backends],
        ),
        _table(
            "Models",
            ("title", "architecture", "made for", "from"),
            [(m.title, m.spec.architecture, f"{m.spec.native_px} px", m.base_model or "a base model") for m in at_hand],
        ),
        _table(
            f"Generations, {gateway.jobs.num_waiting} waiting",
            ("id", "state", "progress", "model"),
            [(job.id, job.state.value, f"{job.progress.fraction:.0%}", job.model) for job in jobs],
        ),
    ]
    body = f"""<h1>Darkroom</h1>
<p class="quiet">The API of the AUTOMATIC1111 web UI, at this address; the token is the password of HTTP Basic.</p>
<p><a href="/docs">every route</a> · <a href="/openapi.json">OpenAPI</a> ·
<a href="/sdapi/v1/sd-models">models</a> · <a href="/sdapi/v1/samplers">samplers</a> ·
<a href="/darkroom/v1/jobs">generations</a></p>
{"".join(sections)}"""
    return _page(body, f'<meta http-equiv="refresh" content="{_RELOAD_SECONDS}">')


def render_routes(paths: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """The page at /docs: every route and what it does. paths: as in an OpenAPI document."""
    rows = [
        (method.upper(), path, operation.get("description", ""))
        for path, methods in sorted(paths.items())
        for method, operation in methods.items()
    ]
    body = f"""<h1>Routes</h1>
<p><a href="/">Darkroom</a> · <a href="/openapi.json">the same as OpenAPI</a></p>
{_table("All but /healthz and /readyz ask for the token", ("method", "path", "what it does"), rows)}"""
    return _page(body)


def _page(body: str, head: str = "") -> str:
    """Nothing in it is fetched from elsewhere."""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Darkroom</title>
<meta name="viewport" content="width=device-width">{head}
<style>{_STYLE}</style></head><body>
{body}
</body></html>"""


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<h2>{escape(title)}</h2><p class='quiet'>none</p>"
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<h2>{escape(title)}</h2><table><tr>{cells}</tr>{lines}</table>"
