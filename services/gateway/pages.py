"""The pages for people: /docs (Swagger UI) and /redoc. They load nothing from anywhere else.

The scripts come from the fastapi_offline wheel, found without importing it: it would bring all of FastAPI along.
"""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from services.chassis.config import ConfigurationError
from services.chassis.errors import NotFound
from services.gateway.routes import Router, Values

# Redoc asks a server far away for its logo, and Swagger UI would for a badge: the browser is told not to.
_POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_PAGE_HEADERS = {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
_ASSET_HEADERS = {"Cache-Control": "public, max-age=3600", "X-Content-Type-Options": "nosniff"}
_ASSETS = ("favicon.png", "redoc.standalone.js", "swagger-ui-bundle.js", "swagger-ui.css")

_DOCS = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Baton API</title>
<link rel="icon" href="/docs/assets/favicon.png">
<link rel="stylesheet" href="/docs/assets/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="/docs/assets/swagger-ui-bundle.js"></script>
<script src="/docs/assets/start.js"></script>
</body>
</html>
"""
_START = """SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_REDOC = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8"><title>Baton API</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="/docs/assets/favicon.png">
</head>
<body>
<redoc spec-url="/openapi.json"></redoc>
<script src="/docs/assets/redoc.standalone.js"></script>
</body>
</html>
"""


def add_pages(router: Router, openapi: bytes) -> None:
    """Adds /openapi.json, the pages that show it, and `/`, which leads to them. All are open to everybody."""
    assets = _assets()

    async def document(request: Request, values: Values) -> Response:
        return Response(openapi, media_type="application/json")

    async def docs(request: Request, values: Values) -> Response:
        return HTMLResponse(_DOCS, headers=_PAGE_HEADERS)

    async def redoc(request: Request, values: Values) -> Response:
        return HTMLResponse(_REDOC, headers=_PAGE_HEADERS)

    async def asset(request: Request, values: Values) -> Response:
        return _asset(assets, values["file"])

    async def start(request: Request, values: Values) -> Response:
        return RedirectResponse("/docs")

    router.add("GET", "/openapi.json", document)
    router.add("GET", "/docs", docs)
    router.add("GET", "/redoc", redoc)
    router.add("GET", "/docs/assets/{file}", asset)
    router.add("GET", "/", start)


def _asset(assets: Mapping[str, Path], name: str) -> Response:
    if name == "start.js":
        return Response(_START, headers=_ASSET_HEADERS, media_type="text/javascript")
    if name not in assets:
        raise NotFound("there is nothing at this path; /docs lists what there is", reason="ROUTE_NOT_FOUND")
    return FileResponse(assets[name], headers=_ASSET_HEADERS)


def _assets() -> dict[str, Path]:
    spec = find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the package fastapi-offline, which holds the scripts of /docs, is not installed")
    static = Path(spec.origin).parent / "static"
    return {name: static / name for name in _ASSETS}
