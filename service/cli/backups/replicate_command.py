"""`shadowswitch replicate`: what a store is fit for."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from shadowswitch.service.cli import output
from shadowswitch.service.cli.directory import Json
from shadowswitch.storage.chain.probe import CONTENDERS, ROUNDS
from shadowswitch.storage.chain.probe import probe as probed
from shadowswitch.storage.objects.opening import open_store


def add_to(app: App) -> None:
    """Register the command."""
    app.command(replicate)


def replicate(
    url: str, *, probe: Annotated[bool, Parameter(negative="", show_default=False)] = False, json: Json = False
) -> None:
    """Find out whether a store can hold a chain: whether it keeps the conditions of its requests under contention.

    A store that ignores them would lose acknowledged writes. Exit status 1: do not use it for replication; it can still
    hold backups. What the probe stores it removes again.

    Example: `shadowswitch replicate s3://bucket/search --probe`

    Parameters
    ----------
    url
        As for `backup`.
    probe
        Contenders make the same objects at a time: exactly one of them has to get the answer that it did.
    """
    if not probe:
        raise ValueError("say --probe: replication itself is not there yet")
    store = open_store(url)
    probed(store)
    text = f"{store.url} keeps conditions: {ROUNDS} rounds of {CONTENDERS} contenders, one winner in each"
    output.print_result({"url": store.url, "rounds": ROUNDS, "contenders": CONTENDERS}, text, json)
