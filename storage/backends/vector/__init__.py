"""The `vector` backend: records by the nearness of their vectors. The extra `vector`."""

import os
import sys
from importlib.util import find_spec

from shadowswitch.model.errors import InvalidConfig
from shadowswitch.storage.shortages import refuse_without

NUMPY_BYTES = 192 << 20
"""Of address space, for numpy and the memory of its threads."""

if find_spec("numpy") is None:
    raise InvalidConfig(
        "the backend vector needs the package numpy, which is not installed",
        hint="pip install 'shadowswitch[vector]'",
    )
if "numpy" not in sys.modules:  # OpenBLAS sends its process SIGINT when it cannot start its threads
    refuse_without(os.cpu_count() or 1, NUMPY_BYTES, "load numpy")
