"""Operations: metrics for Prometheus, the Grafana dashboard, the systemd unit, logs with request ids."""

from __future__ import annotations

import json
import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from shadowswitch.service.cli.app import app
from tests.support.engine_helpers import ROOT
from tests.support.http_helpers import Client, serving

EXAMPLES = ROOT / "docs" / "examples"
CHANGES = {"changes": [{"resource_type": "object_type", "id": str(n), "fields": {"text": "hello"}} for n in range(100)]}


def values(client: Client) -> dict[str, dict[str, float]]:
    """The samples of /metrics by name and labels."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(client.get("/metrics")):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def test_metrics_count_switches_and_writes_and_the_grafana_dashboard_uses_existing_ones(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        client = server.client()
        client.post("branches", {"name": 'awk"ward\\branch'})
        client.post("branches", {"name": "main"})
        client.post("branches/main/write", CHANGES)
        switches = [client.post(f"shadow-index/{client.built()}/switch", {}) for _ in range(2)]
        assert all(switch["success"] for switch in switches)
        attempts = sum(switch["attempts"] for switch in switches)  # on a loaded machine one may be given up
        client.built()
        client.post("branch-locks/acquire", {"branch_name": "main", "lock_type": "BACKUP"})
        found = values(client)
        index = "branch=main,index_type=SEARCH_INDEX"
        assert found["shadowswitch_sealed_seconds_count"][""] == attempts
        assert found["shadowswitch_switch_seconds_count"][""] == 2
        assert found["shadowswitch_write_seconds_count"][""] == 1
        assert found["shadowswitch_index_records"][index] == 100
        assert found["shadowswitch_index_lag_changes"][index] == 0
        assert found["shadowswitch_locks"][""] == 1
        assert found["shadowswitch_shadows"]["state=BUILT"] == 1
        assert found["shadowswitch_disk_free_bytes"][""] > 0
        assert found["shadowswitch_crashes"][""] == 0
        assert 'branch=awk"ward\\branch' in found["shadowswitch_branch_head_lsn"]
        buckets = found["shadowswitch_sealed_seconds_bucket"]
        assert buckets["le=+Inf"] == attempts
        assert list(buckets.values()) == sorted(buckets.values())

        dashboard = json.loads((EXAMPLES / "grafana-dashboard.json").read_text())
        asked = {
            name
            for panel in dashboard["panels"]
            for target in panel["targets"]
            for name in re.findall(r"shadowswitch_\w+", target["expr"])
        }
        assert len(asked) > 15
        assert asked <= found.keys()


def test_the_systemd_unit_calls_the_command_with_valid_arguments() -> None:
    unit = (EXAMPLES / "shadowswitch.service").read_text()
    (line,) = re.findall(r"^ExecStart=\S+/shadowswitch (serve .*)$", unit, re.MULTILINE)
    command, bound, _ = app.parse_args(line, print_error=False, exit_on_error=False)
    assert command.__name__ == "serve"
    assert bound.arguments["data"] == Path("/var/lib/shadowswitch/data")


def test_log_lines_are_json_and_have_the_request_id(tmp_path: Path) -> None:
    with serving(tmp_path / "data", "--log-json") as server:
        client = server.client()
        answer = client.call("GET", "branches/nothing", headers={"X-Request-ID": "mine-1"})
        assert (answer.headers["x-request-id"], answer.body["request_id"]) == ("mine-1", "mine-1")
        assert (
            client.call("GET", "branches", headers={"X-Request-ID": "no\tgood"}).headers["x-request-id"] != "no\tgood"
        )
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log.splitlines()]
        (logged,) = [line for line in lines if line.get("request_id") == "mine-1"]
        assert logged.keys() >= {"time", "level", "method", "path", "status", "ms", "caller"}
        assert (logged["status"], logged["caller"]) == (404, "local")
