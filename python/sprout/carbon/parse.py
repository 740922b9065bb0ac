# SPDX-License-Identifier: Apache-2.0
"""Reading what an API sent: any surprise in its shape is a FeedMalformed that names it. And times
as APIs are asked for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from sprout.errors import FeedMalformed


@contextmanager
def shape(name: str) -> Iterator[None]:
    """What subscripting and converting an answer may raise, in the name of a source."""
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        # The kind alone: its text may quote the answer at any length.
        what = str(error) if isinstance(error, KeyError | ShapeError) else type(error).__name__
        raise FeedMalformed(f"{name}: unexpected answer: {what}") from None


class ShapeError(ValueError):
    """A value that has another form than promised; within `shape` alone."""


def number(value: object) -> float:
    """ShapeError for all but a number: `true` and "171" are none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ShapeError(f"a {type(value).__name__} where a number belongs")
    return float(value)


def moment(value: object) -> datetime:
    """Of ISO 8601 with a time zone, in UTC. ShapeError."""
    if not isinstance(value, str):
        raise ShapeError(f"a {type(value).__name__} where a time belongs")
    try:
        when = datetime.fromisoformat(value)
    except ValueError:
        raise ShapeError("a text that is no ISO 8601 time") from None
    if when.tzinfo is None:
        raise ShapeError("a time without a time zone")
    return when.astimezone(UTC)


def iso(when: datetime) -> str:
    """2026-11-22T01:00:00Z"""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
