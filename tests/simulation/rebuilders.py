"""Clients that write, lock, build, switch, roll back, cancel and retry, all at once."""

from __future__ import annotations

from typing import Any

from shadowswitch.model.views import SwitchRequest
from tests.simulation.clients import TYPES, Client

INDEX_TYPE = "SEARCH_INDEX"
WEIGHTS = {
    "write": 40,
    "acquire": 8,
    "release": 4,
    "build": 12,
    "built": 10,
    "switch": 16,
    "rollback": 8,
    "cancel": 4,
    "retry": 4,
    "force": 1,
}


class Rebuilder(Client):
    """A client whose builds everybody knows of."""

    weights = WEIGHTS

    def _shadow(self, branch: str) -> str | None:
        known = [shadow.shadow_index_id for shadow in self.host.shadows(branch)]
        return self._world.random.choice(known[-3:]) if known else None

    def _build(self, branch: str) -> None:
        config: dict[str, Any] = {"parallel_workers": 1, "shards": self._world.random.choice((1, 1, 2))}
        op = self._op("build", branch)
        self._do(op, lambda: self.host.start_build(branch, INDEX_TYPE, TYPES, config))

    def _built(self, branch: str) -> None:
        shadow = self._shadow(branch)
        if shadow is not None:
            self._do(self._op("built", branch), lambda: self.host.wait_for(shadow, "BUILT", timeout_s=5))

    def _switch(self, branch: str) -> None:
        shadow = self._shadow(branch)
        if shadow is not None:
            request = SwitchRequest(backup_current=self._world.random.random() < 0.8, switch_timeout_seconds=3)
            self._do(self._op("switch", branch), lambda: self.host.switch(shadow, request))

    def _rollback(self, branch: str) -> None:
        self._do(self._op("rollback", branch), lambda: self.host.rollback(branch, INDEX_TYPE))

    def _cancel(self, branch: str) -> None:
        shadow = self._shadow(branch)
        if shadow is not None:
            self._do(self._op("cancel", branch), lambda: self.host.cancel_build(shadow, "changed my mind"))

    def _retry(self, branch: str) -> None:
        shadow = self._shadow(branch)
        if shadow is not None:
            self._do(self._op("retry", branch), lambda: self.host.retry_build(shadow))
