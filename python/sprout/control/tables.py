# SPDX-License-Identifier: Apache-2.0
"""The tables of the store."""

import zlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from sprout.v1 import control_pb2 as pb

METADATA = sa.MetaData()
VERSION = 4  # SQLite's user_version: raised with every change to these tables
# Of an outcome's flags: a meter stood still meanwhile. That says nothing of what drew the level, so
# it is no arm; joules and grams are not all there, so they are in no sum and no comparison.
UNMETERED = 512
BEFORE_SERIES = "before series were kept apart"
# By the version that an older store is of: what makes it one of the next. New tables are there by
# then.
UPGRADES = {
    1: ("ALTER TABLE outcomes ADD COLUMN tenant TEXT NOT NULL DEFAULT ''",),
    2: (
        f"INSERT INTO grams SELECT arm, '{BEFORE_SERIES}', carbon_g FROM totals "  # noqa: S608
        "WHERE carbon_g > 0",
    ),
    3: (
        "ALTER TABLE totals ADD COLUMN unmetered BIGINT NOT NULL DEFAULT 0",
        "CREATE INDEX unmetered ON outcomes (pack_hash, level, id) WHERE flags & 512",
    ),
}
WRAP = 1 << 64
PACK_FROM = 512  # characters


def signed(value: int) -> int:
    """An unsigned 64-bit number as a column holds it: two's complement."""
    return value if value < WRAP >> 1 else value - WRAP


class U64(sa.TypeDecorator[int]):
    """An unsigned 64-bit number in a signed column (two's complement)."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: int | None, dialect: Dialect) -> int | None:
        return None if value is None else signed(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> int | None:
        return value if value is None or value >= 0 else value + WRAP


POLICIES = sa.Table(
    "policies",
    METADATA,
    sa.Column("version", U64, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("pack_hash", U64, nullable=False),
    sa.Column("issued_at", sa.Double, nullable=False, index=True),
    sa.Column("message", sa.LargeBinary, nullable=False),  # sprout.v1.Policy
)

OUTCOMES = sa.Table(
    "outcomes",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),  # in the order of arrival
    sa.Column("segment_uid", U64, nullable=False),
    sa.Column("ticket", U64, nullable=False),
    sa.Column("stored_at", sa.Double, nullable=False, index=True),
    sa.Column("node", sa.Text, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),  # what it counts as in the totals
    sa.Column("eligible", sa.Boolean, nullable=False),  # counts for the profile, see profile.py
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("level_name", sa.Text, nullable=False),
    sa.Column("policy_version", U64, nullable=False),
    sa.Column("pack_hash", U64),  # of the policy; NULL: a policy that is not known here
    sa.Column("policy_seed", U64, nullable=False),
    sa.Column("node_id", U64, nullable=False),
    sa.Column("stub_index", sa.BigInteger, nullable=False),
    sa.Column("sequence", U64, nullable=False),
    sa.Column("task", sa.Text, nullable=False),
    # As in the ledger: 1 pinned … 256 prompt, 1024 unscored; and UNMETERED.
    sa.Column("flags", sa.Integer, nullable=False),
    sa.Column("ending", sa.Integer, nullable=False),
    sa.Column("input_tokens", sa.BigInteger, nullable=False),
    sa.Column("output_tokens", sa.BigInteger, nullable=False),
    sa.Column("max_tokens", sa.BigInteger, nullable=False),
    sa.Column("opened_at", sa.Double, nullable=False),
    sa.Column("queue_seconds", sa.Double, nullable=False),
    sa.Column("device_seconds", sa.Double, nullable=False),
    sa.Column("first_token_seconds", sa.Double, nullable=False),
    sa.Column("energy_joules", sa.Double, nullable=False),
    sa.Column("energy_estimated", sa.Boolean, nullable=False),
    sa.Column("receipt_joules", sa.Double),
    sa.Column("carbon_g", sa.Double),  # NULL: the intensity was not known
    sa.Column("intensity_g_per_kwh", sa.Double),
    sa.Column("tenant", sa.Text, nullable=False, server_default=""),  # "": none was given
    sa.UniqueConstraint("segment_uid", "ticket"),
    sa.Index("profile", "pack_hash", "level", "eligible", "id"),
    # Those few alone: a level's that belong beside its newest eligible ones.
    sa.Index("unmetered", "pack_hash", "level", "id", sqlite_where=sa.text("flags & 512")),
)

# Its joules are all there.
METERED: sa.ColumnElement[bool] = OUTCOMES.c.flags.bitwise_and(UNMETERED) == 0

# Delivered with as many tokens as were allowed.
CUT = sa.and_(
    OUTCOMES.c.ending == pb.ENDING_DELIVERED,
    OUTCOMES.c.max_tokens > 0,
    OUTCOMES.c.output_tokens >= OUTCOMES.c.max_tokens,
)

TOTALS = sa.Table(
    "totals",
    METADATA,
    sa.Column("arm", sa.Text, primary_key=True),
    sa.Column("outcomes", sa.BigInteger, nullable=False),
    sa.Column("energy_joules", sa.Double, nullable=False),
    sa.Column("carbon_g", sa.Double, nullable=False),
    sa.Column("output_tokens", sa.Double, nullable=False),
    sa.Column("energy_estimated", sa.Boolean, nullable=False),
    # Outcomes that are in neither energy nor carbon.
    sa.Column("unmetered", sa.BigInteger, nullable=False, server_default="0"),
)

# Of TOTALS, its grams as they may be added.
GRAMS = sa.Table(
    "grams",
    METADATA,
    sa.Column("arm", sa.Text, primary_key=True),
    sa.Column("series", sa.Text, primary_key=True),  # as grid.grams_as names it
    sa.Column("carbon_g", sa.Double, nullable=False),
)

INTENSITIES = sa.Table(
    "intensities",
    METADATA,
    sa.Column("zone", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("factor_type", sa.Text, primary_key=True),
    sa.Column("signal", sa.Text, primary_key=True),
    sa.Column("time", sa.Double, primary_key=True),
    sa.Column("g_per_kwh", sa.Double, nullable=False),
    sa.Column("estimated", sa.Boolean, nullable=False),
    sa.Column("stored_at", sa.Double, nullable=False, index=True),
)


class Packed(sa.TypeDecorator[str]):
    """Text that is compressed where it is long; rows from before that hold it as it is."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> Any:
        if value is None or len(value) < PACK_FROM:
            return value
        return zlib.compress(value.encode())

    def process_result_value(self, value: Any, dialect: Dialect) -> str | None:
        return zlib.decompress(value).decode() if isinstance(value, bytes) else value


FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),  # in the order of arrival
    sa.Column("time", sa.Double, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),  # of rows.FEEDBACK_KINDS
    sa.Column("level", sa.Integer, nullable=False),
    sa.Column("policy_version", U64, nullable=False),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("count", sa.BigInteger, nullable=False),
)

# Which reports of feedback are in it, so that one that is sent again counts once.
FEEDBACK_REPORTS = sa.Table(
    "feedback_reports",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),  # in the order of arrival
    sa.Column("report_id", sa.Text, nullable=False, unique=True),
    sa.Column("time", sa.Double, nullable=False, index=True),
)

READINGS = sa.Table(
    "readings",
    METADATA,
    sa.Column("node", sa.Text, primary_key=True),
    sa.Column("time", sa.Double, primary_key=True),
    sa.Column("metered_joules", sa.Double, nullable=False),
    sa.Column("settled_joules", sa.Double, nullable=False),
    sa.Column("idle_joules", sa.Double, nullable=False),
    sa.Column("energy_estimated", sa.Boolean, nullable=False),
    sa.Column("active", sa.BigInteger, nullable=False),
    sa.Column("policy_version", U64, nullable=False),
    sa.Index("readings_time", "time"),
)

SWITCHBACKS = sa.Table(
    "switchbacks",
    METADATA,
    sa.Column("seed", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("block_s", sa.Double, nullable=False),
    sa.Column("washout_s", sa.Double, nullable=False),
    sa.Column("share", sa.Double, nullable=False),
)

BLOCKS = sa.Table(
    "blocks",
    METADATA,
    sa.Column("seed", sa.BigInteger, primary_key=True),
    sa.Column("number", sa.BigInteger, primary_key=True),
    sa.Column("arm", sa.Text, nullable=False),
    sa.Column("measured_from", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double, nullable=False, index=True),
    sa.Column("spoiled", sa.Text, nullable=False),
)

# Of all outcomes ever stored, like TOTALS.
ENDINGS = sa.Table(
    "endings",
    METADATA,
    sa.Column("arm", sa.Text, primary_key=True),
    sa.Column("ending", sa.Integer, primary_key=True),  # sprout.v1.Ending
    sa.Column("outcomes", sa.BigInteger, nullable=False),
)

# What each policy was solved from; goes with its policy.
DECISIONS = sa.Table(
    "decisions",
    METADATA,
    sa.Column("version", U64, primary_key=True),
    sa.Column("inputs", Packed, nullable=False),  # JSON of sprout.control.inputs.Inputs
)

EVALUATIONS = sa.Table(
    "evaluations",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True),  # in the order of arrival
    sa.Column("id", sa.Text, nullable=False, unique=True),
    sa.Column("finished_at", sa.Double, nullable=False, index=True),
    sa.Column("stored_at", sa.Double, nullable=False),
    sa.Column("pack_hash", U64, nullable=False),
    sa.Column("message", sa.LargeBinary, nullable=False),  # sprout.v1.Evaluation
)

# Never changed and never pruned: see the triggers below.
AUDIT = sa.Table(
    "audit",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("who", sa.Text, nullable=False),
    sa.Column("who_basis", sa.Text, nullable=False),
    sa.Column("claimed", sa.Text, nullable=False),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("before", sa.Text, nullable=False),  # JSON
    sa.Column("after", sa.Text, nullable=False),  # JSON
)
for _change in ("UPDATE", "DELETE"):
    sa.event.listen(
        AUDIT,
        "after_create",
        sa.DDL(  # type: ignore[no-untyped-call]
            f"CREATE TRIGGER audit_no_{_change.lower()} BEFORE {_change} ON audit "
            "BEGIN SELECT RAISE(ABORT, 'the audit is only ever added to'); END"
        ),
    )

SETTINGS = sa.Table(
    "settings",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),  # JSON
)
