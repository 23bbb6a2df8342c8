"""The kind `violations`: what records have that their schemas do not allow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from shadowswitch.model.kinds.violations import ViolationPage


class Violations:
    """`reader.violations`. Each call reads one moment of each shard.

    Raises InvalidConfig for a wrong argument, and Timeout after `timeout_s` (default: `Config.search_timeout_s`).
    """

    def __init__(self, ask: Callable[..., Any]) -> None:
        self._ask = ask

    def list(
        self,
        resource_type: str | None = None,
        rule: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
        timeout_s: float | None = None,
    ) -> ViolationPage:
        """A page of violations, by resource type and id: at most `limit`, up to 10,000, behind the page of `cursor`.

        Only of records of a type, or of a rule as `counts` names it. Pages fit together whatever is written: each
        violation that is there all the time is on one of them. Of one record the first 100 violations are listed.
        """
        how: dict[str, Any] = {"resource_type": resource_type, "rule": rule, "limit": limit, "cursor": cursor}
        found: ViolationPage = self._ask("list", timeout_s, **how)
        return found

    def counts(self, timeout_s: float | None = None) -> Mapping[str, int]:
        """The number of violations of each rule that has any. Looks at each of them: half a microsecond."""
        found: Mapping[str, int] = self._ask("counts", timeout_s)
        return found

    def is_valid(self, resource_type: str, id: str, timeout_s: float | None = None) -> bool:
        """Whether the index has the record, and no violation of it. A type without a schema allows everything."""
        found: bool = self._ask("is_valid", timeout_s, resource_type=resource_type, id=id)
        return found
