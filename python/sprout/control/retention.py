# SPDX-License-Identifier: Apache-2.0
"""What the store forgets, and what it does not."""

import sqlalchemy as sa

from sprout.control import tables as t


def prune(db: sa.Connection, older_than: float, newest_outcomes: int) -> int:
    """Drop what was stored before a time, and outcomes beyond the newest; how many rows.

    What comes by the request, or by the second, is kept up to as many rows as outcomes. Freed pages
    are re-used: the file stops growing, it does not shrink.
    """
    removed = 0
    for table, column in (
        (t.OUTCOMES, t.OUTCOMES.c.stored_at),
        (t.INTENSITIES, t.INTENSITIES.c.stored_at),
        (t.POLICIES, t.POLICIES.c.issued_at),
        (t.FEEDBACK, t.FEEDBACK.c.time),
        (t.FEEDBACK_REPORTS, t.FEEDBACK_REPORTS.c.time),
        (t.READINGS, t.READINGS.c.time),
        (t.BLOCKS, t.BLOCKS.c.ended_at),
    ):
        removed += db.execute(table.delete().where(column < older_than)).rowcount
    # q rests on the newest of each pack, however old it is.
    e = t.EVALUATIONS.c
    last_of = sa.select(sa.func.max(e.finished_at)).group_by(e.pack_hash)
    old = e.stored_at < older_than
    removed += db.execute(t.EVALUATIONS.delete().where(old, e.finished_at.not_in(last_of))).rowcount
    kept = sa.select(t.POLICIES.c.version)
    db.execute(t.DECISIONS.delete().where(t.DECISIONS.c.version.not_in(kept)))
    for table, column in (
        (t.OUTCOMES, t.OUTCOMES.c.id),
        (t.READINGS, t.READINGS.c.time),
        (t.FEEDBACK, t.FEEDBACK.c.id),
        (t.FEEDBACK_REPORTS, t.FEEDBACK_REPORTS.c.number),
    ):
        spare = sa.select(column).order_by(column.desc()).offset(newest_outcomes).limit(1)
        last = db.scalar(spare)
        if last is not None:
            removed += db.execute(table.delete().where(column <= last)).rowcount
    return removed
