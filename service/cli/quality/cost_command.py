"""`shadowswitch cost`: what a build would read and embed, before it begins."""

from __future__ import annotations

from cyclopts import App

from shadowswitch.model.views import BuildCost
from shadowswitch.service.cli import output
from shadowswitch.service.cli.builds import build_config, types_to_build
from shadowswitch.service.cli.directory import Data, Json, open_catalog
from shadowswitch.service.cli.write_commands import Names
from shadowswitch.storage.generations.build_spec import make_spec
from shadowswitch.storage.quality.costing import CountCost, count_cost


def add_to(app: App) -> None:
    """Register the command."""
    app.command(cost)


def cost(
    branch: str,
    index_type: str = "SEARCH_INDEX",
    *,
    data: Data,
    resource_type: Names = None,
    backend: str | None = None,
    option: Names = None,
    json: Json = False,
) -> None:
    """Count what a build would read and embed, and how long the embedding takes by the last rate. It starts nothing.

    Works beside a host. The options are those of `build`.

    Example: `shadowswitch cost main VECTOR_INDEX --backend vector --option embedder=words --option field=text
    --option dimensions=384 --data ./data`

    Parameters
    ----------
    resource_type
        A resource type to index; may be repeated. Default: every type with records on the branch.
    backend
        The backend of the index.
    option
        A further option of the backend, as `name=value` with a JSON value; may be repeated.
    """
    config = build_config(backend, None, None, None, option)
    with open_catalog(data) as catalog:
        types = types_to_build(catalog, branch, resource_type, json)
        spec = make_spec(index_type, types, config)
        found = count_cost(catalog, CountCost(str(data), catalog.branch(branch).number, spec)).cost
    if json:
        output.print_json(found)
    else:
        output.say(cost_text(found))


def cost_text(found: BuildCost) -> str:
    """The cost in a sentence."""
    records = output.counted(found.records, "record")
    if not found.texts:
        return f"{records} to read, none to embed"
    text = f"{records} to read, {output.counted(found.to_embed, 'text')} to embed of {found.texts:,}"
    if found.embedding_s is None:
        return f"{text}; the time is unknown, for this embedder has embedded nothing here"
    return f"{text}; about {found.embedding_s:,.0f} s" if found.to_embed else text
