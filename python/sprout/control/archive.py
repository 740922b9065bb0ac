# SPDX-License-Identifier: Apache-2.0
"""The store, read alone: for reports, beside a control plane that goes on writing.

Sums are made by the database, one row per (policy, arm, level, metered or not, task, tenant): a
report over a million outcomes holds some thousand rows. Each question reads the outcomes once,
however many blocks and nodes it is about. An outcome belongs to the time that it was opened at.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from sprout.control import tables as t
from sprout.control.database import LOOKUP, translated
from sprout.control.inbox import OURS
from sprout.control.notes import Note, note
from sprout.control.rows import BlockRow
from sprout.errors import ControlError

# Outcomes are found by when they were stored, which has an index; they are opened before that, by
# the clock of another machine.
SKEW_S = 3600.0
CHUNK = 50_000  # rows that are held at once
_O = t.OUTCOMES.c


class Sums(NamedTuple):
    """Of the outcomes of one policy, arm, level, task and tenant that were metered, or not."""

    policy_version: int
    arm: str
    level: int
    metered: bool  # else joules and grams are not all of it
    task: str
    tenant: str  # "": none was given
    requests: int
    joules: float
    joules2: float  # Σ of squares, as all that end in 2
    joules_s: float  # Σ of joules * device seconds; so with grams
    grams: float
    grams2: float
    grams_s: float
    with_grams: int  # requests whose intensity was known
    tokens: float  # of output
    tokens2: float
    device_s: float
    device_s2: float
    estimated: int  # requests whose joules are a model's
    truncated: int  # delivered with as many tokens as were allowed


class Slice(NamedTuple):
    """Of one arm under one policy in one part of the span."""

    part: int
    policy_version: int
    arm: str
    requests: int
    joules: float  # of those that were metered, as grams
    grams: float | None  # None: the intensity of none was known


@dataclass(frozen=True)
class Span:
    since: float  # seconds since 1970
    until: float  # not in it


class Counters(NamedTuple):
    """A node's readings in time order: each (readings,)."""

    time: NDArray[np.float64]  # seconds since 1970
    metered_joules: NDArray[np.float64]
    idle_joules: NDArray[np.float64]
    estimated: NDArray[np.bool_]
    policy_version: NDArray[np.uint64]


class Opened:
    """How many requests each node was asked in any span between the edges that were counted."""

    def __init__(self, edges: NDArray[np.float64], counts: dict[str, NDArray[np.int64]]) -> None:
        """edges: rising. counts: by node, opened between each edge and the next."""
        self._edges = edges
        self._before = {node: np.concatenate(([0], own.cumsum())) for node, own in counts.items()}

    def within(self, node: str, span: Span) -> int:
        """Its ends must be among the edges."""
        before = self._before.get(node)
        if before is None:
            return 0
        first, last = np.searchsorted(self._edges, (span.since, span.until))
        return int(before[last] - before[first])


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
            columns = db.exec_driver_sql("PRAGMA table_info(outcomes)").all()
            self._has_tenants = any(row[1] == "tenant" for row in columns)
        if made_by not in (t.VERSION, *t.UPGRADES):  # an older one has no tenants
            raise ControlError(f"store {path}: made by another version of Sprout ({made_by})")

    def close(self) -> None:
        self._engine.dispose()

    def sums(self, span: Span, *, by_task: bool = True) -> list[Sums]:
        """by_task: and by tenant. Clients name tasks as they like, and there may be as many as
        requests."""
        c = _O
        keys: list[Any] = [c.policy_version, c.arm, c.level, t.METERED]
        nobody: Any = sa.literal("")
        tenant = sa.literal_column("outcomes.tenant") if self._has_tenants else nobody
        named = [*keys, *((c.task, tenant) if by_task else (nobody, nobody))]
        columns: list[Any] = [*named, sa.func.count()]
        for column in (c.energy_joules, c.carbon_g, c.output_tokens, c.device_seconds):
            columns += [sa.func.total(column), sa.func.total(column * column)]
            if column is c.energy_joules or column is c.carbon_g:
                columns.append(sa.func.total(column * c.device_seconds))
            if column is c.carbon_g:
                columns.append(sa.func.count(column))
        columns += [sa.func.total(c.energy_estimated), sa.func.total(t.CUT)]
        query = (
            sa.select(*columns)
            .where(*self._within(span))
            .group_by(*(named[: 6 if self._has_tenants else 5] if by_task else keys))
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
                c.policy_version,
                c.arm,
                sa.func.count(),
                sa.func.total(c.energy_joules).filter(t.METERED),
                sa.func.sum(c.carbon_g).filter(t.METERED),
            )
            .where(*self._within(span))
            .group_by(part, c.policy_version, c.arm)
            .order_by(part)
        )
        with self._reading() as db:
            return [Slice(*row) for row in db.execute(query)]

    def nodes(self, span: Span) -> int:
        """How many were asked anything in the span, Sprout's own requests left out."""
        query = sa.select(sa.func.count(sa.distinct(_O.node))).where(
            *self._within(span), _O.arm.not_in(OURS)
        )
        with self._reading() as db:
            return int(db.scalar(query) or 0)

    def opened(self, spans: Iterable[Span]) -> Opened:
        """Requests by node in each span, Sprout's own left out; spans may overlap.

        One pass over the outcomes, merged with the ends of all spans.
        """
        edges = np.unique([end for span in spans for end in (span.since, span.until)])
        counts: dict[str, NDArray[np.int64]] = {}
        if len(edges) < 2:
            return Opened(edges, counts)
        whole = Span(float(edges[0]), float(edges[-1]))
        query = sa.select(_O.node, _O.opened_at).where(*self._within(whole), _O.arm.not_in(OURS))
        with self._reading() as db:
            rows = db.execution_options(yield_per=CHUNK).execute(query)
            for part in rows.partitions():
                names, times = zip(*part, strict=True)
                at = np.searchsorted(edges, np.array(times), side="right") - 1
                index = {name: i for i, name in enumerate(dict.fromkeys(names))}
                node = np.fromiter((index[name] for name in names), np.int64, len(names))
                bins = np.bincount(
                    node * len(edges) + at, minlength=len(index) * len(edges)
                ).reshape(len(index), len(edges))
                for name, i in index.items():
                    counts[name] = counts.get(name, 0) + bins[i]
        return Opened(edges, counts)

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
            for first in range(0, len(versions), LOOKUP):
                part = versions[first : first + LOOKUP]
                query = sa.select(t.POLICIES.c.message).where(t.POLICIES.c.version.in_(part))
                found += [note(message) for message in db.scalars(query)]
        return found

    def readings(self, span: Span) -> Iterator[tuple[str, Counters]]:
        """Node by node, with what was read before and behind the span."""
        if "readings" not in self._tables:
            return
        c = t.READINGS.c
        version = sa.type_coerce(c.policy_version, sa.BigInteger)  # two's complement, as stored
        columns = (c.time, c.metered_joules, c.idle_joules, c.energy_estimated, version)
        with self._reading() as db:
            names = db.scalars(sa.select(c.node).distinct().order_by(c.node)).all()
        for node in names:
            query = (
                sa.select(*columns)
                .where(c.node == node)
                .where(c.time >= span.since - SKEW_S, c.time < span.until + SKEW_S)
                .order_by(c.time)
            )
            with self._reading() as db:
                rows = db.execute(query).all()
            if rows:
                time, metered, idle, estimated, versions = zip(*rows, strict=True)
                yield (
                    node,
                    Counters(
                        np.array(time, np.float64),
                        np.array(metered, np.float64),
                        np.array(idle, np.float64),
                        np.array(estimated, np.bool_),
                        np.array(versions, np.int64).view(np.uint64),
                    ),
                )

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
        with translated(self._path), self._engine.connect() as db:
            yield db
