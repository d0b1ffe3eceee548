"""What people may call a step, what it saves, an item and a secret."""

import re
from typing import Any

RULE = "1 to 64 letters, digits and underscores that begins with no digit"
"""What follows `a name of`."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(_NAME.fullmatch(value))
