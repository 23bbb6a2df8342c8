"""Events from outside over HTTP: a token cannot take the outcome of an event of another token."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shadowswitch.service.http.access import Scope
from tests.support.http_helpers import serving, token_entry


def test_a_token_of_other_branches_cannot_send_an_event_of_main_first(tmp_path: Path) -> None:
    rights = (Scope.READ, Scope.WRITE, Scope.BUILD, Scope.SWITCH, Scope.LOCK)
    feature, first = token_entry("feature", rights, ["feature/*"])
    funnel, second = token_entry("funnel", rights)

    def event(branch: str) -> dict[str, Any]:
        data = {"branch_name": branch}
        return {"specversion": "1.0", "id": "7", "source": "f", "type": "com.oms.indexing.completed", "data": data}

    structured = {"Content-Type": "application/cloudevents+json"}
    with serving(tmp_path / "data", SHADOWSWITCH_TOKENS=f"{first}\n{second}") as server:
        other, real = server.client(feature), server.client(funnel)
        real.post("branches", {"name": "main"})
        other.post("branches", {"name": "feature/a"})
        other.post("branch-locks/indexing/feature%2Fa/start", {"resource_types": ["a"]})
        assert other.post("events", event("feature/a"), headers=structured)["outcome"] == "completed"
        other.refused(403, "POST", "events", event("main"), headers=structured)
        real.post("branch-locks/indexing/main/start?service_name=funnel", {"resource_types": ["object_type"]})
        outcome = real.post("events", event("main"), headers=structured)
        assert (outcome["outcome"], outcome["duplicate"], outcome["branch_name"]) == ("completed", False, "main")
        assert real.post("events", event("main"), headers=structured)["duplicate"] is True
