# SPDX-License-Identifier: Apache-2.0
"""The store, read alone: for reports, beside a control plane that goes on writing.

Sums are made by the database, one row per (policy, arm, level, task): a report over a million
outcomes holds some thousand rows. An outcome belongs to the time that it was opened at.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from sprout.control import tables as t
from sprout.control.notes import Note, note
from sprout.control.rows import BlockRow, Reading
from sprout.errors import ControlError

# Outcomes are found by when they were stored, which has an index; they are opened before that, by
# the clock of another machine.
SKEW_S = 3600.0
_O = t.OUTCOMES.c


class Sums(NamedTuple):
    """Of the outcomes of one policy, arm, level and task."""

    policy_version: int
    arm: str
    level: int
    task: str
    requests: int
    joules: float
    joules2: float  # Σ of squares, as all that end in 2
    grams: float
    grams2: float
    with_grams: int  # requests whose intensity was known
    tokens: float  # of output
    tokens2: float
    device_s: float
    device_s2: float
    estimated: int  # requests whose joules are a model's
    truncated: int  # delivered with as many tokens as were allowed


class Slice(NamedTuple):
    """Of one arm and level in one part of the span."""

    part: int
    arm: str
    level: int
    requests: int
    joules: float
    grams: float


@dataclass(frozen=True)
class Span:
    since: float  # seconds since 1970
    until: float  # not in it


class Archive:
    """Raises ControlError where there is no store, or it can't be read."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise ControlError(f"nothing to report: there is no store at {path}")
        self._path = path
        self._engine = sa.create_engine(
            f"sqlite:///file:{path}?mode=ro&uri=true", connect_args={"timeout": 5}
        )
        with self._reading() as db:
            made_by = db.scalar(sa.text("PRAGMA user_version"))
            self._tables = set(sa.inspect(db).get_table_names())
        if made_by != t.VERSION:
            raise ControlError(f"store {path}: made by another version of Sprout ({made_by})")

    def close(self) -> None:
        self._engine.dispose()

    def sums(self, span: Span, *, by_task: bool = True) -> list[Sums]:
        """by_task: clients name tasks as they like, and there may be as many as requests."""
        c = _O
        keys: list[Any] = [c.policy_version, c.arm, c.level]
        named = [*keys, c.task] if by_task else [*keys, sa.literal("")]
        columns: list[Any] = [*named, sa.func.count()]
        for column in (c.energy_joules, c.carbon_g, c.output_tokens, c.device_seconds):
            columns += [sa.func.total(column), sa.func.total(column * column)]
            if column is c.carbon_g:
                columns.append(sa.func.count(column))
        columns += [sa.func.total(c.energy_estimated), sa.func.total(t.CUT)]
        query = (
            sa.select(*columns).where(*self._within(span)).group_by(*(named if by_task else keys))
        )
        with self._reading() as db:
            rows = db.execute(query).all()
        return [Sums._make((*row[:-2], int(row[-2]), int(row[-1]))) for row in rows]

    def slices(self, span: Span, part_s: float) -> list[Slice]:
        """In time order; part 0 begins with the span."""
        c = _O
        part = sa.cast((c.opened_at - span.since) / part_s, sa.Integer)
        query = (
            sa.select(
                part,
                c.arm,
                c.level,
                sa.func.count(),
                sa.func.total(c.energy_joules),
                sa.func.total(c.carbon_g),
            )
            .where(*self._within(span))
            .group_by(part, c.arm, c.level)
            .order_by(part)
        )
        with self._reading() as db:
            return [Slice(*row) for row in db.execute(query)]

    def requests(self, span: Span) -> dict[str, int]:
        """Opened in the span, by node; Sprout's own probes left out."""
        query = (
            sa.select(_O.node, sa.func.count())
            .where(*self._within(span), _O.arm != "probe")
            .group_by(_O.node)
        )
        with self._reading() as db:
            return {row[0]: row[1] for row in db.execute(query)}

    def notes(self, span: Span) -> list[Note]:
        """The policies that were in force in the span, oldest first."""
        p = t.POLICIES.c
        before = sa.select(sa.func.max(p.issued_at)).where(p.issued_at <= span.since)
        first = sa.func.coalesce(before.scalar_subquery(), span.since)
        query = (
            sa.select(p.message)
            .where(p.issued_at >= first, p.issued_at < span.until)
            .order_by(p.issued_at, p.version)
        )
        with self._reading() as db:
            return [note(message) for message in db.scalars(query)]

    def notes_of(self, versions: Sequence[int]) -> list[Note]:
        """The policies of these versions, as far as they are stored."""
        found: list[Note] = []
        with self._reading() as db:
            for first in range(0, len(versions), 10_000):
                part = versions[first : first + 10_000]
                query = sa.select(t.POLICIES.c.message).where(t.POLICIES.c.version.in_(part))
                found += [note(message) for message in db.scalars(query)]
        return found

    def readings(self, span: Span) -> dict[str, list[Reading]]:
        """By node, oldest first, with the one before and the one behind the span."""
        if "readings" not in self._tables:
            return {}
        c = t.READINGS.c
        columns = [c[name] for name in Reading._fields]
        query = (
            sa.select(*columns)
            .where(c.time >= span.since - SKEW_S, c.time < span.until + SKEW_S)
            .order_by(c.node, c.time)
        )
        found: dict[str, list[Reading]] = {}
        with self._reading() as db:
            for row in db.execute(query):
                found.setdefault(row[0], []).append(Reading(*row))
        return found

    def blocks(self, span: Span) -> list[BlockRow]:
        """That were measured within the span, in time order."""
        if "blocks" not in self._tables:
            return []
        c = t.BLOCKS.c
        columns = [c[name] for name in BlockRow._fields]
        query = (
            sa.select(*columns)
            .where(c.measured_from >= span.since, c.ended_at <= span.until)
            .order_by(c.ended_at)
        )
        with self._reading() as db:
            return [BlockRow(*row) for row in db.execute(query)]

    def feedback(self, span: Span) -> list[tuple[int, str, int, str, int]]:
        """(policy version, arm, level, kind, requests)"""
        if "feedback" not in self._tables:
            return []
        f = t.FEEDBACK.c
        query = (
            sa.select(f.policy_version, f.arm, f.level, f.kind, sa.func.sum(f["count"]))
            .where(f.time >= span.since, f.time < span.until)
            .group_by(f.policy_version, f.arm, f.level, f.kind)
        )
        with self._reading() as db:
            return [(r[0], r[1], r[2], r[3], int(r[4])) for r in db.execute(query)]

    def pause(self) -> str | None:
        """Why the policy is paused, as stored (JSON text); None: it is not."""
        with self._reading() as db:
            text = db.scalar(sa.select(t.SETTINGS.c.value).where(t.SETTINGS.c.key == "pause"))
        return None if text in (None, "null") else str(text).strip('"')

    @staticmethod
    def _within(span: Span) -> tuple[Any, ...]:
        stored, opened = _O.stored_at, _O.opened_at
        return (stored >= span.since - SKEW_S, opened >= span.since, opened < span.until)

    @contextmanager
    def _reading(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as db:
                yield db
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            raise ControlError(f"store {self._path}: {cause}") from None
