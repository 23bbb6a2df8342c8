"""`/metrics`: the figures of the engine for Prometheus, read from the engine at each request. Times are in seconds.

The registry is separate from that of the host program. A row of a branch is shown to callers that reach the branch. A
sum over the whole engine names no branch, and is shown to every caller.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

from litestar import Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from shadowswitch.engine.inspection import JOURNALS_MAX
from shadowswitch.model.views import IndexFigures
from shadowswitch.service.daemon.daemon import UpkeepStatus
from shadowswitch.service.http.access import Caller, Scope
from shadowswitch.service.http.host import Host
from shadowswitch.service.http.routing import PREFIX, reads

NAMESPACE = "shadowswitch"
CONTENT_TYPE = CONTENT_TYPE_LATEST.removesuffix("; charset=utf-8")
"""Litestar adds the charset to a type of text. A parser of media types refuses a parameter that comes twice."""
RUNNING = ("PREPARING", "BUILDING", "BUILT")
COMPLETED = ("BUILT", "SWITCHING", "ACTIVE", "CLEANUP")
MOST_HELD = f" Of more than {JOURNALS_MAX} branches, those with the most held journal."
INDEX_GAUGES: dict[str, tuple[str, Callable[[IndexFigures], int]]] = {
    "index_lag_changes": ("Changes not yet visible to readers.", attrgetter("lag_changes")),
    "index_records": ("Records of a live index.", attrgetter("record_count")),
    "index_pins": ("Readers of a live generation.", attrgetter("pins")),
    "index_generation": ("The live generation.", attrgetter("generation")),
}
HISTOGRAMS = {
    "sealed": "Turns of switches (drain, proof and commit), for which writers may have waited.",
    "commit": "Group commits of the journal, with their fsync.",
    "write": "Writes, from the call to the durable answer.",
    "switch": "Switches and rollbacks, with validation and verification.",
}


@reads(["/metrics", f"{PREFIX}/metrics"], Scope.READ, media_type="text/plain")
def metrics(host: Host, caller: Caller) -> Response[bytes]:
    """Metrics for Prometheus. A row of a branch is there for a token that reaches the branch."""
    return Response(exposition(host, caller), media_type=CONTENT_TYPE)


HANDLERS = (metrics,)


def exposition(host: Host, caller: Caller) -> bytes:
    """The metrics of this moment that a caller may see."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(host, caller))
    return generate_latest(registry) + _indexes(host.engine.index_figures(caller.wanted))


class _Collector:
    def __init__(self, host: Host, caller: Caller) -> None:
        self._host = host
        self._caller = caller

    def collect(self) -> Iterator[Metric]:
        engine, caller = self._host.engine, self._caller
        stats = engine.stats()
        yield from _counters(stats["counters"])
        for name, (buckets, total_s) in engine.histograms().items():
            help_ = HISTOGRAMS.get(name, f"The engine's measurement {name}.")
            metric = HistogramMetricFamily(f"{NAMESPACE}_{name}_seconds", help_)
            metric.add_metric([], [(_bound(upper), count) for upper, count in buckets], total_s)
            yield metric
        yield from _builds(self._host, caller)
        yield from _journal([one for one in stats["journal"] if caller.reaches(one["branch"])])
        yield _gauge("locks", "Held locks.", [({}, len(engine.locks(wanted=caller.wanted)))])
        yield from _daemon(self._host.daemon_status_for(caller))
        yield from _process(self._host, stats)


def _bound(upper_s: float) -> str:
    return "+Inf" if upper_s == float("inf") else f"{upper_s:.9g}"


def _counters(counters: dict[str, int]) -> Iterator[Metric]:
    for name, value in counters.items():
        yield CounterMetricFamily(f"{NAMESPACE}_{name}", f"The engine's counter {name}.", value=value)


def _gauge(name: str, help_: str, rows: list[tuple[dict[str, str], float]]) -> Metric:
    """A gauge with a row for each set of labels. All sets have the same names."""
    labels = list(rows[0][0]) if rows else []
    metric = GaugeMetricFamily(f"{NAMESPACE}_{name}", help_, labels=labels)
    for row, value in rows:
        metric.add_metric([row[label] for label in labels], value)
    return metric


def _indexes(indexes: list[IndexFigures]) -> bytes:
    """The gauges of live indexes in the text format. In prometheus_client the rows of an index cost several times more
    than its figures."""
    labels = [f'{{branch="{_escaped(one.branch_name)}",index_type="{_escaped(one.index_type)}"}}' for one in indexes]
    lines: list[str] = []
    for name, (help_, value_of) in INDEX_GAUGES.items():
        lines += (f"# HELP {NAMESPACE}_{name} {help_}", f"# TYPE {NAMESPACE}_{name} gauge")
        values = map(float, map(value_of, indexes))
        lines += [f"{NAMESPACE}_{name}{label} {value}" for label, value in zip(labels, values, strict=True)]
    return "".join(f"{line}\n" for line in lines).encode()


def _escaped(label: str) -> str:
    return label.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def counts_of(host: Host, caller: Caller, branch_name: str = "", in_state: str = "") -> Counter[str]:
    """How many shadows the caller reaches, by state."""
    if caller.wanted is None and not branch_name:
        counts = host.engine.count_shadow_states()
        return Counter({state: count for state, count in counts.items() if in_state in ("", state)})
    reached = Counter[str]()
    for name, of_branch in host.engine.count_shadows(branch_name or None, in_state or None).items():
        if caller.reaches(name):
            reached.update(of_branch)
    return reached


def _builds(host: Host, caller: Caller) -> Iterator[Metric]:
    states = counts_of(host, caller)
    yield _gauge("shadows", "Shadows by state.", [({"state": state}, count) for state, count in states.items()])
    shadows = host.engine.shadows
    running = [one for state in RUNNING for one in shadows(state=state, wanted=caller.wanted)]
    keys = [{"branch": one.branch_name, "index_type": one.index_type, "shadow": one.shadow_index_id} for one in running]
    percent = [one.build_progress_percent for one in running]
    lag = [float(one.lag_changes) for one in running]
    yield _gauge("build_progress_percent", "The progress of a build.", list(zip(keys, percent, strict=True)))
    yield _gauge("build_lag_changes", "Changes that a shadow has not applied.", list(zip(keys, lag, strict=True)))
    newest = [one for state in COMPLETED for one in shadows(None, state, 1, newest_first=True, wanted=caller.wanted)]
    paces = {one.generation: one.records_per_second for one in newest if one.records_per_second is not None}
    if paces:
        yield _gauge("build_records_per_second", "The pace of the newest completed build.", [({}, paces[max(paces)])])


def _journal(figures: list[dict[str, Any]]) -> Iterator[Metric]:
    heads = [({"branch": one["branch"]}, float(one["head_lsn"])) for one in figures]
    kept = [({"branch": one["branch"]}, float(one["head_lsn"] - one["oldest_lsn"] + 1)) for one in figures]
    held = [
        ({"branch": one["branch"], **_holder(holder)}, float(one["head_lsn"] - holder["durable_lsn"]))
        for one in figures
        for holder in one["held_by"]
    ]
    held_help = f"LSNs that a generation or a hold of a subscriber keeps in the journal.{MOST_HELD}"
    yield _gauge("branch_head_lsn", f"The last LSN of a branch.{MOST_HELD}", heads)
    yield _gauge("journal_kept_changes", f"LSNs that the journal of a branch keeps.{MOST_HELD}", kept)
    yield _gauge("journal_held_changes", held_help, held)


def _holder(holder: dict[str, Any]) -> dict[str, str]:
    """The labels of a holder of the journal: a generation with its role, or a hold (`hold_changes`) with its name."""
    if "hold" in holder:
        return {"generation": "", "role": "hold", "hold": holder["hold"]}
    return {"generation": str(holder["generation"]), "role": holder["role"], "hold": ""}


def _daemon(status: UpkeepStatus) -> Iterator[Metric]:
    """Folders, webhooks, indexes and settings of the daemon, with their failures."""
    mirrors = [({"branch": one.branch, "folder": one.folder, "prefix": one.prefix}, one) for one in status.mirrors]
    left_out = [
        ({**row, "reason": reason}, float(count)) for row, one in mirrors for reason, count in one.skipped.items()
    ]
    yield _gauge("mirror_files", "Files of a folder that are in its branch.", [(k, one.files) for k, one in mirrors])
    yield _gauge("mirror_left_out_files", "Files of a folder that are not in its branch, by reason.", left_out)
    yield _gauge("mirror_failing", "Whether a folder cannot be followed now.", [(k, bool(m.error)) for k, m in mirrors])
    hooks = [({"webhook": name}, one) for name, one in {one.name: one for one in status.webhooks}.items()]
    yield _gauge("webhook_behind_events", "Events not yet sent to an endpoint.", [(k, w.behind) for k, w in hooks])
    yield _gauge("webhook_missed_events", "Events removed before they were sent.", [(k, w.missed) for k, w in hooks])
    described = [({"branch": one.branch, "index_type": one.index_type}, one) for one in status.indexes]
    yield _gauge(
        "index_as_described",
        "Whether an index is as the settings say.",
        [(k, i.as_described) for k, i in described],
    )
    yield _gauge("settings_refused", "Whether the present settings file is refused.", [({}, bool(status.error))])
    yield _gauge("not_started", "Parts of the settings that cannot be started.", [({}, len(status.not_started))])


def _process(host: Host, stats: dict[str, Any]) -> Iterator[Metric]:
    for name, value in stats["catalog"].items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield _gauge(f"catalog_{name}", f"The catalog's {name}.", [({}, value)])
    yield from _databases(stats["catalog"])
    disk = os.statvfs(host.engine.path)
    yield _gauge("disk_free_bytes", "Free space for the data directory.", [({}, disk.f_bavail * disk.f_frsize)])
    yield _gauge("disk_size_bytes", "Size of the file system.", [({}, disk.f_blocks * disk.f_frsize)])
    simple = {
        "pins": "Pins of all open generations.",
        "generations_open": "Open generations.",
        "queued_changes": "Changes admitted and not yet committed.",
        "branch_actors": "Branches with a running actor.",
    }
    for name, help_ in simple.items():
        yield _gauge(name, help_, [({}, stats[name])])
    yield _gauge("crashes", "Actors that crashed and were restarted.", [({}, len(stats["crashes"]))])
    yield _gauge("http_in_flight", "Requests under way.", [({}, host.in_flight)])
    yield _gauge("http_streams", "Open event streams.", [({}, host.streams.taken)])
    yield _gauge("start_time_seconds", "When the server started, since the epoch.", [({}, host.started)])


def _databases(catalog: dict[str, Any]) -> Iterator[Metric]:
    """The journal has a metric of its own: it grows while a holder keeps it, so alarms watch it."""
    sizes, entries = catalog["size_bytes"], catalog["entries"]
    yield _gauge("journal_size_bytes", "Size of the journal of all branches in the catalog.", [({}, sizes["journal"])])
    rows = [({"database": name}, float(size)) for name, size in sizes.items()]
    yield _gauge("catalog_size_bytes", "Size of a database of the catalog.", rows)
    rows = [({"database": name}, float(count)) for name, count in entries.items()]
    yield _gauge("catalog_entries", "Entries of a database of the catalog.", rows)
