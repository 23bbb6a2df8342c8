"""The reader of a `validation` generation."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.model.kinds.asking import LIMIT_MAX, Asking, check_count, check_key
from shadowswitch.model.kinds.violations import Violation, ViolationPage
from shadowswitch.model.names import check_resource_type
from shadowswitch.storage.backends import kinds as query_kinds
from shadowswitch.storage.backends.derived.entries import HASH_BYTES
from shadowswitch.storage.backends.derived.reader import DerivedReader
from shadowswitch.storage.backends.validation.places import RECORD, RULE, of_record, of_rule, of_type


class ValidationReader(DerivedReader):
    """See `kinds.ViolationReader`. One thread at a time, any thread."""

    kinds = query_kinds.VIOLATIONS

    def list(
        self,
        asking: Asking,
        resource_type: str | None = None,
        rule: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> ViolationPage:
        check_count("limit", limit, LIMIT_MAX)
        within = of_type(check_resource_type(resource_type)) if resource_type is not None else b""
        if rule is not None and not isinstance(rule, str):
            raise InvalidConfig(f"rule is {rule!r:.80}", operation="query", hint="name a rule, as counts gives them")
        begin = (RECORD if rule is None else of_rule(rule)) + within
        with self.moment(asking) as moment:
            found = moment.page(begin, limit + 1, _place(cursor, begin))
        page = [Violation(*value) for _, value in found[:limit]]
        return ViolationPage(page, _cursor(found[limit - 1][0]) if len(found) > limit else None)

    def counts(self, asking: Asking) -> Mapping[str, int]:
        with self.moment(asking) as moment:
            counted = moment.counts(RULE, HASH_BYTES + 1)
            return dict(sorted((moment.first(begin, 1)[0][2], count) for begin, count in counted.items()))

    def is_valid(self, asking: Asking, resource_type: str, id: str) -> bool:
        key = check_key((resource_type, id), "the record")
        with self.moment(asking) as moment:
            return moment.has(key) and not moment.first(RECORD + of_record(*key), 1)


def _cursor(place: bytes) -> str:
    return urlsafe_b64encode(place).decode().rstrip("=")


def _place(cursor: str | None, begin: bytes) -> bytes:
    if cursor is None:
        return b""
    try:
        place = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except (TypeError, ValueError, NotBase64):
        place = b""
    if not place.startswith(begin):
        hint = "give the cursor of the page before, with the same resource_type and rule"
        raise InvalidConfig(f"cursor is {cursor!r:.80}", operation="query", hint=hint)
    return place
