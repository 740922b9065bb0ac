# SPDX-License-Identifier: Apache-2.0
"""The flight ledger: a flight's way, agreement with the reference, and files that lie."""

import os
import random
import secrets
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import wait_for

from sprout_ext import reference
from sprout_ext.ledger import (
    COUNTERS,
    FLIGHT,
    Counter,
    Flights,
    Phase,
    Role,
    Segment,
    SegmentReader,
    segments,
)

OPENING: dict[str, Any] = {
    "level": 2,
    "flags": 5,
    "policy_version": 2**63 + 1,
    "policy_seed": 2**64 - 1,
    "sequence": 2**40,
    "task": b"summarise",
    "input_tokens": 17,
    "max_tokens": 64,
    "opened_ns": 1000,
    "intensity_g_per_kwh": 250.5,
    "pue": 1.3,
    "embodied_g_per_s": 2e-4,
    "tenant": b"acme",
}
END: dict[str, Any] = {
    "input_tokens": 18,
    "output_tokens": 9,
    "first_scheduled_ns": 1900,
    "first_token_ns": 2900,
    "last_token_ns": 5000,
}


def plain(row: Any) -> dict[str, Any]:
    """A flight as a dict, whatever gave it: Flight, a row of FLIGHT, a record."""
    get = row.__getitem__ if isinstance(row, np.void) else lambda name: getattr(row, name)
    values = {name: get(name) for name in FLIGHT.names}
    return {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}


def test_a_flight_from_start_to_end(tmp_path: Path):
    segment = Segment.create(tmp_path, Role.PREPROCESSING, 1, 77, records=4)
    flights, agent = Flights(tmp_path), SegmentReader(segment.path)
    ticket = segment.open_flight(**OPENING)
    assert (ticket >> 48, ticket >> 32 & 0xFFFF, ticket & 0xFFFFFFFF) == (segment.tag, 0, 1)

    (row,) = agent.scan()
    opened = plain(row)
    assert {name: opened[name] for name in OPENING} == OPENING
    assert opened["phase"] == Phase.OPENED
    assert opened["scheduled_ns"] == opened["last_token_ns"] == opened["output_tokens"] == 0

    assert opened["heartbeat_ns"] == 0
    assert flights.arrived(ticket, 1500)
    (waiting,) = agent.scan()
    assert (waiting["phase"], waiting["heartbeat_ns"], waiting["scheduled_ns"]) == (0, 1500, 0)

    assert flights.scheduled(ticket, 2000)
    view = flights.view(ticket)
    assert view is not None
    assert (view.phase, view.scheduled_ns, view.heartbeat_ns) == (Phase.SCHEDULED, 2000, 2000)
    assert flights.first_token(ticket, 3000)
    assert flights.progress(ticket, 4, 3500)
    live = plain(flights.view(ticket))
    assert (live["phase"], live["scheduled_ns"], live["first_token_ns"]) == (2, 2000, 3000)
    assert (live["output_tokens"], live["heartbeat_ns"], live["last_token_ns"]) == (4, 3500, 0)

    assert flights.finished(ticket, Phase.FINISHED, **END)
    ended = plain(flights.view(ticket))
    assert (ended["phase"], ended["input_tokens"], ended["output_tokens"]) == (3, 18, 9)
    assert (ended["scheduled_ns"], ended["first_token_ns"], ended["last_token_ns"]) == (
        1900,
        2900,
        5000,
    )
    assert not ended["closed"]
    assert flights.close(ticket, 6000, 12.5)
    (row,) = agent.scan()
    assert (row["closed"], row["closed_ns"], row["receipt_joules"]) == (True, 6000, 12.5)

    agent.release(0, 1)
    assert len(agent.scan()) == 0
    assert flights.view(ticket) is None
    assert not flights.progress(ticket, 5, 7000)
    assert not flights.close(ticket, 7000, 1.0)
    segment.close(unlink=True)
    assert not os.listdir(tmp_path)


def test_the_first_end_stands(tmp_path: Path):
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=1), Flights(tmp_path)
    ticket = segment.open_flight(**OPENING)
    assert flights.finished(ticket, Phase.CANCELLED, **END)
    assert flights.finished(ticket, Phase.FINISHED, **{**END, "output_tokens": 99})
    assert flights.scheduled(ticket, 9999)
    view = flights.view(ticket)
    assert view is not None
    assert (view.phase, view.output_tokens, view.scheduled_ns) == (Phase.CANCELLED, 9, 1900)
    with pytest.raises(ValueError, match="phase"):
        flights.finished(ticket, Phase.SCHEDULED, **END)


def test_end_without_times_keeps_the_live_ones(tmp_path: Path):
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=1), Flights(tmp_path)
    ticket = segment.open_flight(**OPENING)
    assert flights.progress(ticket, 3, 2500)  # a slot that reports nothing but progress
    unknown = dict.fromkeys(END, 0)
    assert flights.finished(ticket, Phase.FAILED, **unknown)
    view = flights.view(ticket)
    assert view is not None
    assert (view.phase, view.scheduled_ns, view.first_token_ns) == (Phase.FAILED, 2500, 2500)
    assert (view.input_tokens, view.output_tokens, view.last_token_ns) == (17, 0, 0)


def test_a_slot_is_used_again_only_after_release(tmp_path: Path):
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=2), Flights(tmp_path)
    agent = SegmentReader(segment.path)
    first = [segment.open_flight(**OPENING) for _ in range(2)]
    assert flights.finished(first[0], Phase.FINISHED, **END)
    assert flights.close(first[0], 1, 1.0)
    assert segment.open_flight(**OPENING) == 0
    assert agent.counters()[Counter.LEDGER_FULL] == 1
    agent.release(0, 2)  # another generation: nothing happens
    assert segment.open_flight(**OPENING) == 0
    agent.release(0, 1)
    again = segment.open_flight(**{**OPENING, "level": 1})
    assert again & 0xFFFFFFFF == 2
    view = flights.view(again)
    assert view is not None
    assert (view.phase, view.closed, view.last_token_ns, view.level) == (0, False, 0, 1)
    assert not flights.scheduled(first[0], 1)
    with pytest.raises(IndexError):
        agent.release(2, 1)


def test_a_table_without_records_counts_only(tmp_path: Path):
    segment = Segment.create(tmp_path, Role.ENGINE, 0, 0)
    assert segment.open_flight(**OPENING) == 0
    segment.count(Counter.CHUNKS, 40)
    segment.count(Counter.CHUNKS)
    counted = SegmentReader(segment.path).counters()
    assert counted.shape == (32,)
    assert (counted[Counter.CHUNKS], counted[Counter.LEDGER_FULL], counted.sum()) == (41, 1, 42)
    with pytest.raises(ValueError, match="counter"):
        segment.count(32)


def test_counter_names_are_the_numbers():
    assert [int(counter) for counter in Counter] == list(range(len(COUNTERS)))


def test_head_of_a_segment(tmp_path: Path):
    segment = Segment.create(tmp_path, Role.BLS, 6, 2**64 - 1, records=3)
    assert segment.path.name == f"segment-{segment.tag:04x}"
    assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600
    for reader in (SegmentReader(segment.path), reference.SegmentReader(segment.path)):
        assert (reader.uid, reader.tag) == (segment.uid, segment.tag)
        assert (reader.role, reader.stub_index, reader.records) == (Role.BLS, 6, 3)
        assert (reader.pid, reader.node_id) == (os.getpid(), 2**64 - 1)
        assert reader.alive
        assert reader.path == segment.path
    segment.close()
    with pytest.raises(ValueError, match="closed"):
        segment.count(0)
    assert segment.path.exists()


def test_a_dead_owner_is_seen(tmp_path: Path):
    code = f"from sprout_ext.ledger import *; Segment.create({str(tmp_path)!r}, 1, 0, 0, records=1)"
    subprocess.run([sys.executable, "-c", code], check=True)
    (reader,) = segments(tmp_path)
    assert not reader.alive
    reader.unlink()
    reader.unlink()
    assert segments(tmp_path) == []


def test_a_reused_pid_is_not_the_owner(tmp_path: Path):
    segment = Segment.create(tmp_path, 1, 0, 0)
    body = bytearray(segment.path.read_bytes())
    body[32] ^= 1  # start time
    words = np.frombuffer(bytes(body[:64]), "<u8")
    body[64:72] = reference.words.fold(int(word) for word in words).to_bytes(8, "little")
    other = tmp_path / "segment-0001"
    other.write_bytes(bytes(body))
    assert SegmentReader(segment.path).alive
    assert not SegmentReader(other).alive


def test_unknown_tickets_are_refused(tmp_path: Path):
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=1), Flights(tmp_path)
    ticket = segment.open_flight(**OPENING)
    other = 0x10000 - segment.tag or 1
    for wrong in (0, ticket + 1, ticket - 1, ticket | 1 << 32, other << 48 | 1, 2**64 - 1):
        if wrong == ticket:
            continue
        assert flights.view(wrong) is None
        assert not flights.scheduled(wrong, 1)
        assert not flights.finished(wrong, Phase.FINISHED, **END)
        assert not flights.close(wrong, 1, 1.0)


def test_bad_openings_are_refused(tmp_path: Path):
    segment = Segment.create(tmp_path, 1, 0, 0, records=1)
    with pytest.raises(ValueError, match="task"):
        segment.open_flight(**{**OPENING, "task": b"x" * 24})
    with pytest.raises(ValueError, match="tenant"):
        segment.open_flight(**{**OPENING, "tenant": b"x" * 24})
    with pytest.raises(TypeError):
        segment.open_flight(**{**OPENING, "input_tokens": -1})
    with pytest.raises(ValueError, match="records"):
        Segment.create(tmp_path, 1, 0, 0, records=65537)
    with pytest.raises(FileNotFoundError):
        Segment.create(tmp_path / "none", 1, 0, 0)
    longest = {"task": b"x" * 23, "tenant": b"y" * 23}
    view = Flights(tmp_path).view(segment.open_flight(**{**OPENING, **longest}))
    assert view is not None
    assert (view.task, view.tenant) == (b"x" * 23, b"y" * 23)


def test_nobody_s_flight(tmp_path: Path):
    """A tenant need not be given, and the one that had the slot before leaves nothing behind."""
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=1), Flights(tmp_path)
    segment.open_flight(**OPENING)
    SegmentReader(segment.path).release(0, 1)
    ticket = segment.open_flight(**{k: v for k, v in OPENING.items() if k != "tenant"})
    view = flights.view(ticket)
    assert view is not None
    assert (view.task, view.tenant) == (b"summarise", b"")


def test_a_segment_of_the_layout_before_is_left_out(tmp_path: Path):
    segment = Segment.create(tmp_path, 1, 0, 0, records=1)
    ticket = segment.open_flight(**OPENING)
    body = bytearray(segment.path.read_bytes())
    body[8] = 1
    words = np.frombuffer(bytes(body[:64]), "<u8")
    body[64:72] = reference.words.fold(int(word) for word in words).to_bytes(8, "little")
    segment.path.write_bytes(bytes(body))
    with pytest.raises(ValueError, match="of another version"):
        SegmentReader(segment.path)
    assert segments(tmp_path) == []
    assert Flights(tmp_path).view(ticket) is None


def test_flights_keeps_few_and_forgets_the_dead(tmp_path: Path):
    flights = Flights(tmp_path)
    made = [Segment.create(tmp_path, 1, 0, 0, records=1) for _ in range(70)]
    tickets = [segment.open_flight(**OPENING) for segment in made]
    assert all(flights.scheduled(ticket, 1) for ticket in tickets)
    assert flights.mapped == 64
    assert all(flights.view(ticket) for ticket in tickets)
    made[-1].close(unlink=True)
    wait_for(lambda: flights.view(tickets[-1]) is None)
    assert flights.mapped == 63
    assert flights.view(tickets[-2]) is not None


def test_listing_leaves_out_what_is_foreign(tmp_path: Path):
    Segment.create(tmp_path, 1, 0, 0)
    (tmp_path / "segment-zzzz").write_bytes(b"?" * 5000)
    (tmp_path / "segment-0000").touch()
    (tmp_path / "segment-aaaa").mkdir()
    (tmp_path / "policy.board").touch()
    assert len(segments(tmp_path)) == 1
    for name in ("segment-zzzz", "segment-0000", "segment-aaaa"):
        with pytest.raises((ValueError, OSError)):
            SegmentReader(tmp_path / name)


# A random history: (what, which ticket, a number).
MOVES = ("open", "arrived", "scheduled", "first_token", "progress", "finished", "close", "release")
history = st.lists(
    st.tuples(st.sampled_from(MOVES), st.integers(0, 5), st.integers(0, 40)), max_size=30
)


def act(side: dict[str, Any], tickets: list[int], move: tuple[str, int, int]) -> object:
    what, which, number = move
    if what == "open":
        opening = {**OPENING, "level": number % 8, "task": b"t" * (number % 24), "flags": number}
        opening["tenant"] = b"n" * (number * 7 % 24)
        return side["segment"].open_flight(**opening)
    if not tickets:
        return None
    ticket = tickets[which % len(tickets)]
    if what == "release":
        side["agent"].release(ticket >> 32 & 0xFFFF, ticket & 0xFFFFFFFF)
        return None
    if what == "progress":
        return side["flights"].progress(ticket, number, 100 + number)
    if what == "finished":
        end = dict.fromkeys(END, number)
        return side["flights"].finished(ticket, Phase(3 + number % 3), **end)
    if what == "close":
        return side["flights"].close(ticket, number, number / 4)
    return getattr(side["flights"], what)(ticket, 100 + number)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history)
def test_both_tell_the_same_history(tmp_path: Path, moves: list[tuple[str, int, int]]):
    """The same moves through the core and through the reference leave the same bytes, and each
    reads the other's."""
    sides, all_tickets = [], []
    for package, name in ((sys.modules["sprout_ext.ledger"], "core"), (reference, "reference")):
        directory = tmp_path / f"{name}-{secrets.token_hex(8)}"
        directory.mkdir()
        segment = package.Segment.create(directory, 1, 0, 0, records=3)
        agent = package.SegmentReader(segment.path)
        flights = package.Flights(directory)
        sides.append({"segment": segment, "agent": agent, "flights": flights, "at": directory})
        all_tickets.append([])
    for move in moves:
        results = []
        for side, tickets in zip(sides, all_tickets, strict=True):
            result = act(side, tickets, move)
            if move[0] == "open" and result:
                tickets.append(result)
                result = int(result) & (1 << 48) - 1  # the tag is random
            results.append(result)
        assert results[0] == results[1]
    bodies = [bytearray(side["segment"].path.read_bytes()[128:]) for side in sides]
    assert bodies[0] == bodies[1]
    for side in sides:
        path = side["segment"].path
        ours, oracle = SegmentReader(path), reference.SegmentReader(path)
        assert ours.scan().dtype == FLIGHT
        assert list(map(plain, ours.scan())) == list(map(plain, oracle.scan()))
        assert ours.counters().tolist() == oracle.counters().tolist()
        for ticket in set(all_tickets[sides.index(side)]):
            views = [
                package.view(ticket)
                for package in (Flights(side["at"]), reference.Flights(side["at"]))
            ]
            assert (views[0] is None) == (views[1] is None)
            if views[0] is not None:
                assert plain(views[0]) == plain(views[1])
        side["segment"].close(unlink=True)


def test_no_damage_harms_the_reader(tmp_path: Path):
    segment, flights = Segment.create(tmp_path, 1, 0, 0, records=6), Flights(tmp_path)
    tickets = [segment.open_flight(**OPENING) for _ in range(5)]
    for ticket in tickets[:3]:
        flights.progress(ticket, 4, 50)
        flights.finished(ticket, Phase.FINISHED, **END)
    flights.close(tickets[0], 60, 2.0)
    good, rng = segment.path.read_bytes(), random.Random(7)
    refused = read = 0
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    path = damaged / segment.path.name
    for _ in range(1500):
        body = bytearray(good)
        for _ in range(rng.choice([1, 2, 16])):
            # half of the damage to the head, which is a small part of the file
            end = rng.choice([128, len(body)])
            body[rng.randrange(end)] = rng.randrange(256)
        if rng.random() < 0.1:
            body = body[: rng.randrange(len(body))]
        path.write_bytes(bytes(body))
        found = Flights(damaged)
        for ticket in tickets:
            found.view(ticket)
            found.progress(ticket, 1, 1)
            found.close(ticket, 1, 1.0)
        path.write_bytes(bytes(body))
        try:
            ours = SegmentReader(path)
        except ValueError:
            refused += 1
            with pytest.raises(ValueError):  # noqa: PT011 - both refuse it, in whatever words
                reference.SegmentReader(path)
            continue
        read += 1
        rows, expected = ours.scan(), reference.SegmentReader(path).scan()
        assert repr(list(map(plain, rows))) == repr(list(map(plain, expected)))  # NaN is NaN
        for row in rows:
            Phase(row["phase"])
            ours.release(int(row["slot"]), int(row["generation"]))
        path.unlink()
    assert refused > 100
    assert read > 100
