"""The HTTP service: routes over an Engine, access, the event stream, metrics, the dashboard. README.md has a map.

Needs the extra `service`; nothing outside this package imports Litestar or uvicorn.
"""
