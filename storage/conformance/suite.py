"""The suite of all parts."""

from __future__ import annotations

from shadowswitch.storage.conformance.applying import Applying
from shadowswitch.storage.conformance.copying import Copying
from shadowswitch.storage.conformance.hostile import Hostile
from shadowswitch.storage.conformance.killing import Killing
from shadowswitch.storage.conformance.loading import Loading
from shadowswitch.storage.conformance.opening import Opening
from shadowswitch.storage.conformance.reading import Reading
from shadowswitch.storage.conformance.repairing import Repairing
from shadowswitch.storage.conformance.seeding import Seeds


class BackendConformance(Opening, Loading, Applying, Repairing, Reading, Copying, Seeds, Hostile, Killing):
    """All promises of a backend. Override the hooks of `base.Hooks`."""
