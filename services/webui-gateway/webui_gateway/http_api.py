"""The HTTP side of the gateway: the A1111 REST API, job routes beside it, and a page for people.

Every path asks for the token but /healthz and /readyz. `__main__` serves it; routes are in `http_generation` and `http_catalogue`.
"""

from fastapi import FastAPI
from fastapi.responses import HTMLResponse, JSONResponse

from webui_gateway import http_catalogue, http_errors, http_generation, status_page
from webui_gateway.errors import NoBackend
from webui_gateway.gateway import Gateway
from webui_gateway.guards import BodyLimit, TokenGuard


def create_app(gateway: Gateway, token: str | None, max_body_bytes: int) -> FastAPI:
    """The application. token: None switches authentication off; an empty one lets nobody in."""
    app = FastAPI(
        title="Darkroom webui-gateway",
        description="The A1111 API in front of one or several engines or A1111 servers.",
        version="1",
        # FastAPI's own pages load scripts from the network; `status_page` draws one that needs none.
        docs_url=None,
        redoc_url=None,
    )
    http_errors.install(app)
    app.include_router(http_generation.router(gateway))
    app.include_router(http_catalogue.router(gateway))
    _add_health(app, gateway)
    _add_page(app, gateway)
    # Added last runs first.
    app.add_middleware(BodyLimit, max_bytes=max_body_bytes)
    if token is not None:
        app.add_middleware(TokenGuard, token=token)
    return app


def _add_health(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        """The process lives."""
        return {"status": "ok"}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """200 while some back end answers."""
        await gateway.refresh()
        try:
            gateway.alive()
        except NoBackend:
            return JSONResponse({"status": "no back end answers"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/internal/ping")
    async def ping() -> dict[str, str]:
        """Nothing, quickly."""
        return {}


def _add_page(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        """What runs here, for a browser."""
        await gateway.refresh()
        return HTMLResponse(status_page.render(gateway), headers={"Cache-Control": "no-store"})

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        """Every route, for a browser."""
        return HTMLResponse(status_page.render_routes(app.openapi()["paths"]))
