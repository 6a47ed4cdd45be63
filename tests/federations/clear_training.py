"""What a training in clear is asked for, to be compared with an encrypted one."""

from collections.abc import Mapping
from typing import Any


def in_clear(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same options of `specification`, without a cap per key: there are no keys."""
    kept = {name: value for name, value in options.items() if name != "encryption_values_per_key"}
    return kept | {"encryption_scheme": "none"}
