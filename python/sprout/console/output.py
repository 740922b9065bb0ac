# SPDX-License-Identifier: Apache-2.0
"""How results reach people and scripts: people read tables, scripts read one JSON document."""

import json
import math
import sys
from typing import Any

from rich.console import Console

# Soft wrap: a line stays a line in a file or a pipe.
_WIDTH = None if sys.stdout.isatty() else 100
out = Console(highlight=False, soft_wrap=True, width=_WIDTH)  # results
err = Console(stderr=True, highlight=False, soft_wrap=True)  # everything else


def emit_json(content: Any) -> None:
    """One document on stdout. NaN and infinity become null: JSON has neither."""
    print(json.dumps(finite(content), indent=2, default=str))


def finite(value: Any) -> Any:
    """The same structure with every float that JSON can't hold replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def grams(value: float) -> str:
    """12.3 mg, 4.56 g; "unknown" where no intensity was known."""
    if math.isnan(value):
        return "unknown"
    return f"{1e3 * value:.3g} mg" if value < 1 else f"{value:.3g} g"


def joules(value: float, estimated: bool | None) -> str:
    """3.21 J, with "estimated" where it comes from a model and not from a meter."""
    if math.isnan(value):
        return "joules unknown"
    return f"{value:.3g} J" + (" (estimated)" if estimated else "")
