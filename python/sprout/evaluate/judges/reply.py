# SPDX-License-Identifier: Apache-2.0
"""A judge's reply, read strictly: one JSON object of one key, and nothing around it.

A looser reader would search prose for a verdict, and prose may quote what an answer says of itself.
"""

import json
from typing import Any

from sprout.evaluate.judges.instructions import Prompt
from sprout.evaluate.judges.verdict import LETTERS, Reason

MAX_CHARS = 1000  # of a verdict; more is no verdict


def read(text: str, prompt: Prompt) -> int | Reason | None:
    """The place that won, None for a tie, or MALFORMED."""
    if len(text) > MAX_CHARS:
        return Reason.MALFORMED
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return Reason.MALFORMED
    if not isinstance(found, dict) or set(found) != {prompt.key}:
        return Reason.MALFORMED
    said = found[prompt.key]
    if not isinstance(said, str) or said not in prompt.choices:
        return Reason.MALFORMED
    return None if said == "tie" else LETTERS.index(said)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A key that is there twice would leave open which one counts."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found
