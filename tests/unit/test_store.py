# SPDX-License-Identifier: Apache-2.0
"""The store: what is unique stays so, what is unsigned stays so, what is old goes."""

import json
import math
import sqlite3
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from sprout.config import Config, ControlConfig
from sprout.console.output import grams
from sprout.console.status import _carbon
from sprout.control import history, inbox, samples, tables
from sprout.control.decide import plan
from sprout.control.grid import DRILL, FORGOTTEN, UNKNOWN
from sprout.control.inputs import Horizon, inputs_of, priors
from sprout.control.store import Store
from sprout.directives import PACKS
from sprout.errors import ControlError
from sprout.optimize.floor import Range
from sprout.profile import NOTHING
from sprout.v1 import control_pb2 as pb

TOP = 2**64 - 1
PACK = 2**64 - 7
VERSION = 1_800_000_000 << 32 | 5


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    store.add_policy(1_800_000_000, VERSION, PACK, time.time(), b"policy")
    yield store
    store.close()


def before_unmetered(db: sqlite3.Connection) -> None:
    """Take back what version 4 brought."""
    db.execute("DROP INDEX unmetered")
    db.execute("ALTER TABLE totals DROP COLUMN unmetered")


def outcome(ticket: int, **fields: Any) -> pb.Outcome:
    values: dict[str, Any] = {
        "segment_uid": TOP,
        "ticket": ticket,
        "policy_version": VERSION,
        "ending": pb.ENDING_DELIVERED,
        "energy_joules": 10.0,
        "device_seconds": 2.0,
        "output_tokens": 100,
        "carbon_g": 0.5,
    }
    return pb.Outcome(**{**values, **fields})


def rows(*outcomes: pb.Outcome) -> list[inbox.Row]:
    return [inbox.row("node-a", o) for o in outcomes]


def test_a_second_copy_is_dropped(store: Store) -> None:
    batch = rows(outcome(1), outcome(2))
    assert store.add_outcomes(batch) == 2
    assert store.add_outcomes(batch) == 0
    assert store.add_outcomes([*batch, *rows(outcome(3))]) == 1
    assert store.totals()[0]["outcomes"] == 3
    assert store.totals()[0]["energy_joules"] == 30


def test_copies_within_one_batch(store: Store) -> None:
    assert store.add_outcomes(rows(outcome(1), outcome(1), outcome(2))) == 2
    assert store.totals()[0]["outcomes"] == 2


def test_same_ticket_of_another_segment_is_another_outcome(store: Store) -> None:
    assert store.add_outcomes(rows(outcome(1), outcome(1, segment_uid=7))) == 2


def test_nothing_is_nothing(store: Store) -> None:
    assert store.add_outcomes([]) == 0
    assert store.totals() == []


def test_all_64_bits_survive(store: Store, tmp_path: Path) -> None:
    big = {"segment_uid": TOP, "ticket": TOP - 1, "policy_seed": 2**63, "node_id": 2**63 + 1}
    store.add_outcomes(rows(pb.Outcome(**big, sequence=TOP, ending=pb.ENDING_LOST)))
    columns = ", ".join(big)
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        found = db.execute(f"SELECT {columns}, sequence FROM outcomes").fetchone()
    db.close()
    assert [value % 2**64 for value in found] == [*big.values(), TOP]
    assert store.add_outcomes(rows(pb.Outcome(**big, sequence=TOP, ending=pb.ENDING_LOST))) == 0


def test_unknown_carbon_is_not_zero(store: Store, tmp_path: Path) -> None:
    with_zero = outcome(1, carbon_g=0.0, intensity_g_per_kwh=0.0)
    unknown = outcome(2)
    unknown.ClearField("carbon_g")
    store.add_outcomes(rows(with_zero, unknown))
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        found = db.execute("SELECT carbon_g, intensity_g_per_kwh FROM outcomes ORDER BY id")
        assert found.fetchall() == [(0.0, 0.0), (None, None)]
    db.close()
    assert store.totals()[0]["carbon_g"] == 0


def priced(version: int, source: str, **fields: Any) -> bytes:
    intensity = pb.Intensity(
        g_per_kwh=300,
        zone="NL",
        source=source,
        factor_type=pb.FACTOR_TYPE_DIRECT,
        signal=pb.SIGNAL_MARGINAL,
        **fields,
    )
    made = pb.Policy(epoch=version >> 32, counter=version & 0xFFFFFFFF, intensity=intensity)
    return made.SerializeToString()


def test_grams_of_two_series_are_never_added(store: Store) -> None:
    """A source fell back, an operator drilled; one policy knew nothing and one is not stored."""
    now, a, b = time.time(), "NL a, direct, marginal", "NL b, direct, marginal"
    for k, body in enumerate(
        (
            priced(VERSION + 1, "a"),
            priced(VERSION + 2, "b"),
            priced(VERSION + 3, "a", override=True),
            pb.Policy(epoch=VERSION >> 32, counter=9).SerializeToString(),
            priced(VERSION + 5, "a"),
        )
    ):
        store.add_policy(VERSION >> 32, VERSION + 1 + k, PACK, now, body)
    batch = [outcome(k, policy_version=VERSION + k) for k in range(1, 7)]
    store.add_outcomes(rows(*batch[:2]))
    store.add_outcomes(rows(*batch))  # two of them again
    unknown = outcome(8, policy_version=VERSION + 1)
    unknown.ClearField("carbon_g")
    store.add_outcomes(rows(unknown, outcome(9, policy_version=VERSION + 1, control=True)))
    drawn, control = sorted(store.totals(), key=lambda row: row["outcomes"], reverse=True)
    assert drawn["carbon_g_by_series"] == {a: 1.0, b: 0.5, DRILL: 0.5, UNKNOWN: 0.5, FORGOTTEN: 0.5}
    assert sum(drawn["carbon_g_by_series"].values()) == pytest.approx(drawn["carbon_g"])
    assert control["carbon_g_by_series"] == {a: 0.5}
    store.prune(now + 1e6, 0)  # they outlive outcomes and policies
    assert store.totals() == sorted([drawn, control], key=lambda row: row["arm"])
    arm = pb.ArmTotals(**drawn)
    assert f"500 mg ({b})" in _carbon(arm)
    assert _carbon(pb.ArmTotals(**control)) == grams(0.5)


def test_grams_of_an_older_store_have_no_series(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = Store(path)
    old.add_outcomes(rows(outcome(1)))
    old.close()
    with sqlite3.connect(path) as db:  # as version 2 left it
        before_unmetered(db)
        db.execute("DROP TABLE grams")
        db.execute("PRAGMA user_version = 2")
    db.close()
    for _ in range(2):  # once
        store = Store(path)
        assert store.totals()[0]["carbon_g_by_series"] == {tables.BEFORE_SERIES: 0.5}
        store.close()


def test_an_upgrade_that_fails_half_way_can_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "old.sqlite"
    old = Store(path)
    old.add_outcomes(rows(outcome(1)))
    old.close()
    with sqlite3.connect(path) as db:  # as version 1 left it
        before_unmetered(db)
        db.execute("DROP TABLE grams")
        db.execute("ALTER TABLE outcomes DROP COLUMN tenant")
        db.execute("PRAGMA user_version = 1")
    db.close()
    with monkeypatch.context() as patch:
        patch.setitem(tables.UPGRADES, 2, ("INSERT INTO grams SELECT * FROM nowhere",))
        with pytest.raises(ControlError):
            Store(path)
    store = Store(path)
    assert store.totals()[0]["carbon_g_by_series"] == {tables.BEFORE_SERIES: 0.5}
    store.close()


def test_totals_of_an_older_store_count_on(tmp_path: Path) -> None:
    path = tmp_path / "old.sqlite"
    old = Store(path)
    old.add_outcomes(rows(outcome(1)))
    old.close()
    with sqlite3.connect(path) as db:  # as version 3 left it
        before_unmetered(db)
        db.execute("PRAGMA user_version = 3")
    db.close()
    store = Store(path)
    store.add_outcomes(rows(outcome(2), outcome(3, unmetered=True)))
    (totals,) = store.totals()
    assert (totals["outcomes"], totals["unmetered"]) == (3, 1)
    with sqlite3.connect(path) as db:
        plan = db.execute(f"EXPLAIN QUERY PLAN {samples.UNMETERED}", (1, 0, 1, 10)).fetchall()
    db.close()
    assert "USING INDEX unmetered" in plan[0][3]
    store.close()


def test_what_was_not_metered_counts_as_it_was_drawn(store: Store) -> None:
    """Its joules, and grams that somebody sends all the same, are in no sum."""
    store.add_outcomes(rows(outcome(1), outcome(2, level=1), outcome(3, control=True)))
    before = {row["arm"]: row for row in store.totals()}
    batch = (
        outcome(11, unmetered=True),
        outcome(12, level=1, unmetered=True),
        outcome(13, control=True, unmetered=True),
        outcome(14, pinned=True, unmetered=True),
    )
    store.add_outcomes(rows(*batch))
    after = {row["arm"]: row for row in store.totals()}
    assert {arm: (row["outcomes"], row["unmetered"]) for arm, row in after.items()} == {
        **dict.fromkeys(("L0", "L1", "control"), (2, 1)),
        "pinned": (1, 1),
    }
    for arm, row in before.items():
        for column in ("energy_joules", "carbon_g", "carbon_g_by_series"):
            assert after[arm][column] == row[column]
    assert (after["pinned"]["energy_joules"], after["pinned"]["carbon_g_by_series"]) == (0, {})
    last, _ = store.last_ids()
    served = {key[1:3]: key[5] for key in store.served(3, last, PACK)}
    assert served == {("L0", 0): 1, ("L1", 1): 1}
    assert store.traffic(PACK, 10) == [("", "", 6)]


def test_e_is_joules_per_second_of_the_metered_times_the_seconds_of_all(store: Store) -> None:
    batch = [outcome(i, device_seconds=1.0, energy_joules=5.0) for i in range(1, 11)]
    store.add_outcomes(rows(outcome(40, device_seconds=99.0, unmetered=True), *batch))
    gap = {"device_seconds": 4.0, "energy_joules": 1.0, "output_tokens": 400, "unmetered": True}
    store.add_outcomes(rows(*(outcome(i, **gap) for i in range(11, 16))))
    never = ({"pinned": True}, {"ending": pb.ENDING_FAILED}, {"prompt": True}, {"level": 1})
    store.add_outcomes(rows(*(outcome(20 + i, **(gap | own)) for i, own in enumerate(never))))
    (found,) = store.measured(1, PACK, 100)
    assert (found.outcomes, found.energy_joules) == (10, pytest.approx(5.0 * 2.0))
    assert (found.device_seconds, found.output_tokens) == (pytest.approx(2.0), pytest.approx(200.0))
    (few,) = store.measured(1, PACK, 2)  # of each kind
    assert (few.outcomes, few.device_seconds) == (2, pytest.approx(2.5))
    assert store.measured(2, PACK, 100)[1] == NOTHING


def test_totals_by_arm(store: Store) -> None:
    store.add_outcomes(
        rows(
            outcome(1),
            outcome(2, level=1),
            outcome(3, control=True),
            outcome(4, off=True, pinned=True),
            outcome(5, pinned=True, level=2),
            outcome(6, fallback=True),
            outcome(7, paused=True),
            outcome(8, held_back=True),
            outcome(9, probe=True, fallback=True),
            outcome(10, level=1, energy_estimated=True),
        )
    )
    totals = {row["arm"]: row for row in store.totals()}
    assert {arm: row["outcomes"] for arm, row in totals.items()} == {
        "L0": 1,
        "L1": 2,
        "control": 1,
        "off": 1,
        "pinned": 1,
        "fallback": 1,
        "paused": 1,
        "held_back": 1,
        "probe": 1,
    }
    assert totals["L1"]["energy_estimated"] == 1
    assert totals["L0"]["energy_estimated"] == 0
    assert totals["L1"]["carbon_g"] == 1.0
    assert totals["L1"]["output_tokens"] == 200


ELIGIBLE = [
    {},
    {"control": True},
    {"held_back": True},
    {"paused": True},
]
NOT_ELIGIBLE = [
    {"pinned": True},
    {"off": True},
    {"probe": True},
    {"prompt": True},
    {"unscored": True},
    {"fallback": True},
    {"unmetered": True},
    {"unmetered": True, "control": True},
    {"control": True, "pinned": True},
    {"ending": pb.ENDING_ABANDONED},
    {"ending": pb.ENDING_CANCELLED},
    {"ending": pb.ENDING_FAILED},
    {"ending": pb.ENDING_LOST},
    {"policy_version": 77},  # of a policy that was never issued here: which pack?
    {"policy_version": 0},
]


@pytest.mark.parametrize("fields", ELIGIBLE)
def test_what_counts_for_the_profile(store: Store, fields: dict[str, Any]) -> None:
    store.add_outcomes(rows(outcome(1, **fields)))
    assert store.measured(1, PACK, 100)[0].outcomes == 1


@pytest.mark.parametrize("fields", NOT_ELIGIBLE)
def test_what_does_not(store: Store, fields: dict[str, Any]) -> None:
    store.add_outcomes(rows(outcome(1, **fields)))
    assert store.measured(1, PACK, 100) == [NOTHING]


def test_means_of_the_newest_by_level(store: Store) -> None:
    store.add_outcomes(
        rows(*(outcome(i, energy_joules=float(i), output_tokens=i) for i in range(1, 11)))
    )
    store.add_outcomes(rows(outcome(20, level=1, energy_joules=7.0, energy_estimated=True)))
    l0, l1, l2 = store.measured(3, PACK, 4)
    assert (l0.outcomes, l0.energy_joules, l0.output_tokens) == (4, 8.5, 8.5)
    assert not l0.energy_estimated
    assert (l1.outcomes, l1.energy_joules, l1.energy_estimated) == (1, 7.0, True)
    assert l2 == NOTHING
    assert store.measured(1, PACK - 1, 4) == [NOTHING]  # another pack's levels


def test_epochs_and_policies(store: Store) -> None:
    assert store.last_epoch() == 1_800_000_000
    store.add_policy(1_900_000_000, 1_900_000_000 << 32 | 1, PACK, 0.0, b"")
    assert store.last_epoch() == 1_900_000_000
    store.add_policy(1_900_000_000, 1_900_000_000 << 32 | 1, PACK, 0.0, b"")  # no error


def test_settings_survive_a_reopening(store: Store, tmp_path: Path) -> None:
    assert store.setting("pause") is None
    store.set_setting("pause", "drill")
    store.set_setting("override", [1.5, 2e9])
    again = Store(tmp_path / "c.sqlite")
    assert again.setting("pause") == "drill"
    assert again.setting("override") == [1.5, 2e9]
    again.set_setting("pause", None)
    assert store.setting("pause") is None
    again.close()


def test_the_revision_moves_with_the_outcomes_kept(store: Store) -> None:
    seen = [store.revision]
    for step in (
        lambda: store.add_outcomes(rows(outcome(1))),
        lambda: store.add_outcomes(rows(outcome(1))),  # a second copy: nothing new
        lambda: store.prune(time.time() + 60, 5),
    ):
        step()
        seen.append(store.revision)
    assert seen[0] < seen[1] == seen[2] < seen[3]


def test_traffic_is_counted_once_a_revision(store: Store) -> None:
    counts: list[str] = []

    def executed(_: Any, __: Any, statement: str, *___: Any) -> None:
        counts.extend([statement] * ("tenant, task" in statement and "COUNT" in statement.upper()))

    event.listen(store._engine, "before_cursor_execute", executed)
    store.add_outcomes(rows(outcome(1, task="a"), outcome(2, task="a", tenant="t")))
    for _ in range(3):
        assert sorted(store.traffic(PACK, 10)) == [("", "a", 1), ("t", "a", 1)]
    assert len(counts) == 1
    assert len(store.traffic(PACK, 1)) == 1  # another question
    assert store.traffic(PACK + 1, 10) == []
    store.add_outcomes(rows(outcome(3, task="a", unscored=True)))
    assert sorted(store.traffic(PACK, 10)) == [("", "a", 2), ("t", "a", 1)]
    assert len(counts) == 4


def test_prune_by_age_and_count_keeps_totals_and_newest(store: Store) -> None:
    store.add_outcomes(rows(*(outcome(i, output_tokens=i) for i in range(1, 21))))
    assert store.prune(0.0, 5) == 15
    assert store.measured(1, PACK, 100)[0].outcomes == 5
    assert store.measured(1, PACK, 100)[0].output_tokens == 18
    assert store.totals()[0]["outcomes"] == 20
    store.prune(time.time() + 60, 5)
    assert store.measured(1, PACK, 100) == [NOTHING]
    assert store.add_outcomes(rows(outcome(99))) == 1
    assert store.totals()[0]["outcomes"] == 21


def test_1000_outcomes_are_one_transaction(store: Store) -> None:
    commits: list[object] = []
    event.listen(store._engine, "commit", commits.append)
    assert store.add_outcomes(rows(*(outcome(i) for i in range(1, 1001)))) == 1000
    assert len(commits) == 1


def test_many_writers_at_once(store: Store) -> None:
    """The same outcomes from eight threads: each stored once, totals exact."""
    batch = rows(*(outcome(i) for i in range(1, 51)))
    stored: list[int] = []
    threads = [
        threading.Thread(target=lambda: stored.append(store.add_outcomes(batch))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(stored) == 50
    assert store.totals()[0]["outcomes"] == 50


def test_a_batch_is_stored_whole_or_not_at_all(store: Store) -> None:
    bad = rows(outcome(2))[0]._replace(node=None)  # type: ignore[arg-type]
    with pytest.raises(ControlError, match="NOT NULL"):
        store.add_outcomes([*rows(outcome(1)), bad])
    assert store.totals() == []
    assert store.add_outcomes(rows(outcome(1))) == 1


def test_file_is_private(store: Store, tmp_path: Path) -> None:
    assert (tmp_path / "c.sqlite").stat().st_mode & 0o777 == 0o600


def test_what_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    path.write_bytes(b"this is not a database, but it is long enough to be looked at" * 20)
    with pytest.raises(ControlError, match="not a database"):
        Store(path)
    with pytest.raises(ControlError, match="unable to open"):
        Store(tmp_path / "absent" / "c.sqlite")


def test_database_of_another_version(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ControlError, match=r"another version of Sprout \(99\)"):
        Store(path)


# --- decisions -----------------------------------------------------------------------------------


def test_long_inputs_are_stored_small_and_come_back_as_they_were(tmp_path: Path) -> None:
    """A budget's decision holds its whole horizon. Rows from before that are text."""
    path = tmp_path / "c.sqlite"
    horizon = [round(300 + 120 * math.sin(h / 3.8) + h % 7, 2) for h in range(336)]
    inputs = {1: json.dumps({"k0": horizon, "n": horizon}), 2: "{}", 3: "é" * 999}
    store = Store(path)
    for number, text in inputs.items():
        store.add_policy(1, number, PACK, time.time(), b"", inputs=text)
    old = json.dumps({"made": "before", "k0": horizon})
    with sqlite3.connect(path) as db:
        db.execute("INSERT INTO decisions (version, inputs) VALUES (?, ?)", (4, old))
        sizes = dict(db.execute("SELECT version, length(inputs) FROM decisions"))
        kinds = dict(db.execute("SELECT version, typeof(inputs) FROM decisions"))
    db.close()
    store.add_policy(1, 4, PACK, time.time(), b"")
    assert {number: text for number, _, text in store.decisions(9)} == {**inputs, 4: old}
    assert kinds == {1: "blob", 2: "text", 3: "blob", 4: "text"}
    assert sizes[1] < len(inputs[1]) / 2
    store.close()


def test_a_stored_budget_is_solved_again_to_the_same_mix(tmp_path: Path) -> None:
    config = Config(control=ControlConfig(mode="bank"))
    levels = PACKS["explicit"].levels
    ahead = tuple(round(300 + 120 * math.sin(h / 3.8), 2) for h in range(48))
    made = inputs_of(config, ahead[0], Range(100, 500, "test"), priors(config, levels))
    made = replace(made, horizon=Horizon(ahead, (10.5,) * 48, 0.95, 12.3, "test"))
    store = Store(tmp_path / "c.sqlite")
    store.add_policy(1, 1, PACK, time.time(), b"", inputs=history.dump(made))
    [(_, _, text)] = store.decisions(1)
    again = history.load(text)
    assert again == made
    assert plan(again).shares == plan(made).shares
    store.close()
