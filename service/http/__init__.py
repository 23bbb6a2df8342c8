"""The HTTP service: routes over an Engine, who may call them, events as they happen, metrics, the dashboard.

    doors.py       what every request passes: host and origin, token, rate, limits, request id, log line
    access.py      tokens, scopes and branch patterns
    app.py         puts the routes together
    shadows.py, indexes.py, branches.py, locks.py, indexing.py, events.py, operations.py    the routes
    problems.py    errors as application/problem+json
    server.py      the process: uvicorn, start and stop

Needs the extra `service`; nothing outside this package imports Litestar or uvicorn.
"""
