# SPDX-License-Identifier: Apache-2.0
"""The tables of the store."""

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from sprout.v1 import control_pb2 as pb

METADATA = sa.MetaData()
VERSION = 1  # SQLite's user_version: raised with every change to these tables
WRAP = 1 << 64


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
    sa.Column("flags", sa.Integer, nullable=False),  # as in the ledger: 1 pinned ... 64 probe
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
    sa.UniqueConstraint("segment_uid", "ticket"),
    sa.Index("profile", "pack_hash", "level", "eligible", "id"),
)

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
    sa.Column("inputs", sa.Text, nullable=False),  # JSON of sprout.control.inputs.Inputs
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
