"""`/`: the dashboard, one page without outside resources. It has no data of its own and needs no token to be seen."""

from __future__ import annotations

from importlib import resources

from litestar import Response

from shadowswitch.service.http.routing import PUBLIC, reads

CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


def _file(name: str) -> Response[bytes]:
    content = (resources.files("shadowswitch.service.http") / name).read_bytes()
    media_type = TYPES[name.rpartition(".")[2]]
    return Response(content, media_type=media_type, headers={"Content-Security-Policy": CSP})


@reads("/", PUBLIC, include_in_schema=False)
def page() -> Response[bytes]:
    """The page."""
    return _file("dashboard.html")


@reads("/dashboard.css", PUBLIC, include_in_schema=False)
def style() -> Response[bytes]:
    """How it looks."""
    return _file("dashboard.css")


@reads("/dashboard.js", PUBLIC, include_in_schema=False)
def script() -> Response[bytes]:
    """What it does."""
    return _file("dashboard.js")


@reads("/dashboard-link.js", PUBLIC, include_in_schema=False)
def link() -> Response[bytes]:
    """How it talks to the server."""
    return _file("dashboard-link.js")


@reads("/dashboard.svg", PUBLIC, include_in_schema=False)
def icon() -> Response[bytes]:
    """Its sign."""
    return _file("dashboard.svg")


HANDLERS = (page, style, script, link, icon)
