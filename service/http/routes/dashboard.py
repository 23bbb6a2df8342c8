"""`/`: the dashboard, one page without outside resources. It contains no data and needs no token."""

from __future__ import annotations

from importlib import resources
from typing import Any

from litestar import Response

from shadowswitch.service.http.routing import PUBLIC, reads

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    "html": "text/html",
    "css": "text/css",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
"""Media types by the end of a file name. Litestar adds the charset to a type of text."""
FILES = {
    "/": "dashboard.html",
    "/dashboard.css": "dashboard.css",
    "/dashboard.js": "dashboard.js",
    "/dashboard-link.js": "dashboard-link.js",
    "/dashboard.svg": "dashboard.svg",
}


def _route(path: str, name: str) -> Any:
    @reads(path, PUBLIC, include_in_schema=False)
    def file() -> Response[bytes]:
        content = (resources.files("shadowswitch.service.http") / name).read_bytes()
        media_type = TYPES[name.rpartition(".")[2]]
        return Response(content, media_type=media_type, headers={"Content-Security-Policy": CSP})

    return file


HANDLERS = tuple(_route(path, name) for path, name in FILES.items())
