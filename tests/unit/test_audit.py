# SPDX-License-Identifier: Apache-2.0
"""The audit: each change, who made it, and that nothing takes an entry back."""

import asyncio
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from control_plane import (
    WAIT_S,
    configure,
    first,
    make_authority,
    running,
    stub_of,
    tls_of,
)

from sprout.config import TlsConfig
from sprout.control import audit as audits
from sprout.control import peer
from sprout.control.audit import Audit
from sprout.control.peer import Caller, address_of, owner
from sprout.control.rows import AuditEntry
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.v1 import control_pb2 as pb

BY = Caller("CN=ops", "certificate", "ada")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store(tmp_path / "c.sqlite")
    yield store
    store.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


def listed(stub: Any, **fields: Any) -> list[pb.AuditEntry]:
    return list(stub.ListAudit(pb.ListAuditRequest(**fields), timeout=WAIT_S).entries)


# --- over gRPC -----------------------------------------------------------------------------------


def test_each_change_has_an_entry_with_from_and_to(tmp_path: Path) -> None:
    config = configure(tmp_path)
    with running(config) as address, stub_of(address) as stub:
        first(stub)
        stub.Pause(pb.PauseRequest(reason="drill", actor="ada"), timeout=WAIT_S)
        stub.Resume(pb.ResumeRequest(), timeout=WAIT_S)
        stub.OverrideIntensity(pb.OverrideIntensityRequest(g_per_kwh=7), timeout=WAIT_S)
        stub.OverrideIntensity(pb.OverrideIntensityRequest(), timeout=WAIT_S)
        wanted = pb.SetObjectiveRequest(objective=pb.Objective(xi=0.3), reason="more")
        stub.SetObjective(wanted, timeout=WAIT_S)
        mix = [pb.LevelShare(level="L1", share=1)]
        stub.Pin(pb.PinRequest(shares=mix, reason="why"), timeout=WAIT_S)
        stub.Unpin(pb.UnpinRequest(), timeout=WAIT_S)
        window = pb.Window(start="22:00", end="22:01", level="L0", weekdays=["sun"])
        stub.SetSchedule(pb.SetScheduleRequest(windows=[window]), timeout=WAIT_S)
        entries = listed(stub)
    changes = [(e.action, json.loads(e.before_json), json.loads(e.after_json)) for e in entries]
    changes.reverse()
    assert changes[0] == ("pause", None, "drill")
    assert changes[1] == ("resume", "drill", None)
    action, before, after = changes[2]
    assert (action, before, after["g_per_kwh"]) == ("override", None, 7)
    assert changes[3] == ("override", after, None)
    action, before, after = changes[4]
    assert (action, before["xi"], after["xi"], after["reason"]) == ("objective", 0.1, 0.3, "more")
    action, before, after = changes[5]
    assert (action, before, after["reason"]) == ("pin", None, "why")
    assert after["shares"] == {"L0": 0, "L1": 1, "L2": 0}
    assert changes[6] == ("unpin", after, None)
    action, before, after = changes[7]
    assert (action, before, after[0]["weekdays"]) == ("schedule", [], ["sun"])
    assert [e.id for e in entries] == [8, 7, 6, 5, 4, 3, 2, 1]
    assert [e.claimed for e in entries if e.claimed] == ["ada"]

    with running(config) as address, stub_of(address) as stub:  # a restart keeps it
        assert listed(stub) == entries
        page = stub.ListAudit(pb.ListAuditRequest(page_size=3), timeout=WAIT_S)
        assert ([e.id for e in page.entries], page.next_before_id) == ([8, 7, 6], 6)
        rest = stub.ListAudit(
            pb.ListAuditRequest(page_size=5, before_id=page.next_before_id), timeout=WAIT_S
        )
        assert ([e.id for e in rest.entries], rest.next_before_id) == ([5, 4, 3, 2, 1], 0)
        assert listed(stub, before_id=2**64 - 1) == entries


def test_what_is_refused_is_no_change(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        with pytest.raises(Exception, match="reason is longer"):
            stub.Pause(pb.PauseRequest(reason="x" * 501), timeout=WAIT_S)
        with pytest.raises(Exception, match="actor is longer"):
            stub.Pause(pb.PauseRequest(actor="x" * 129), timeout=WAIT_S)
        assert listed(stub) == []


def test_on_loopback_the_user_behind_the_connection_is_known(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        stub.Pause(pb.PauseRequest(actor="someone else"), timeout=WAIT_S)
        (entry,) = listed(stub)
    assert entry.who_basis == "uid"
    assert entry.who.startswith(f"uid {os.getuid()}")
    assert entry.claimed == "someone else"


def test_a_certificate_names_its_holder_and_no_secret_is_kept(
    authority: Path, tmp_path: Path
) -> None:
    config = configure(tmp_path, tls=tls_of(authority, "server"))
    with running(config) as address, stub_of(address, tls_of(authority, "client")) as stub:
        first(stub)
        stub.Pause(pb.PauseRequest(actor="root"), timeout=WAIT_S)
        (entry,) = listed(stub)
    assert (entry.who, entry.who_basis, entry.claimed) == ("CN=client", "certificate", "root")
    token = (authority / "token").read_text().strip().encode()
    for file in tmp_path.iterdir():
        assert token not in file.read_bytes()


def test_a_token_alone_proves_no_name(authority: Path, tmp_path: Path) -> None:
    tls = TlsConfig(token_file=authority / "token")
    with running(configure(tmp_path, tls=tls)) as address, stub_of(address, tls) as stub:
        first(stub)
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        assert listed(stub)[0].who_basis == "uid"


# --- entries -------------------------------------------------------------------------------------


def entry(action: str) -> AuditEntry:
    return AuditEntry(1.0, "CN=ops", "certificate", "", action, "null", '"x"')


@pytest.mark.parametrize("statement", ["DELETE FROM audit", "UPDATE audit SET who = 'nobody'"])
def test_the_database_takes_no_entry_back(store: Store, tmp_path: Path, statement: str) -> None:
    store.add_audit(entry("pause"))
    with sqlite3.connect(tmp_path / "c.sqlite") as db, pytest.raises(sqlite3.IntegrityError) as no:
        db.execute(statement)
    db.close()
    assert str(no.value) == "the audit is only ever added to"
    store.prune(1e12, 1)
    assert [e.action for _, e in store.audit(10)] == ["pause"]


def test_a_store_that_was_there_before_gets_the_same_protection(
    store: Store, tmp_path: Path
) -> None:
    store.close()
    with sqlite3.connect(tmp_path / "c.sqlite") as db:
        db.execute("DROP TABLE audit")
    db.close()
    Store(tmp_path / "c.sqlite").close()
    test_the_database_takes_no_entry_back(store, tmp_path, "DELETE FROM audit")


class Broken:
    """A store that fails until it is mended."""

    def __init__(self, store: Store) -> None:
        self._store, self.works = store, False

    def add_audit(self, entry: AuditEntry) -> None:
        if not self.works:
            raise ControlError("disk full")
        self._store.add_audit(entry)


def test_what_can_t_be_written_is_kept_in_order(store: Store) -> None:
    broken = Broken(store)
    audit = Audit(broken)  # type: ignore[arg-type]
    audit.note(1.0, BY, "pause", None, "a")
    audit.note(2.0, BY, "resume", "a", None)
    with pytest.raises(ControlError):
        audit.flush()
    assert audit.pending
    broken.works = True
    audit.flush()
    assert not audit.pending
    found = [(number, e.time, e.who, e.claimed, e.action) for number, e in store.audit(10)]
    assert found == [(2, 2.0, "CN=ops", "ada", "resume"), (1, 1.0, "CN=ops", "ada", "pause")]


def test_two_that_flush_write_each_entry_once(store: Store) -> None:
    audit = Audit(store)
    for i in range(50):
        audit.note(float(i), BY, "pause", None, str(i))
    threads = [threading.Thread(target=audit.flush) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [json.loads(e.after) for _, e in store.audit(100)] == [str(i) for i in range(49, -1, -1)]


def test_a_long_failure_drops_the_oldest_and_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audits, "MAX_PENDING", 3)
    audit = Audit(store)
    for i in range(5):
        audit.note(float(i), BY, "pause", None, i)
    assert audit.dropped == 2
    audit.flush()
    assert [json.loads(e.after) for _, e in store.audit(10)] == [4, 3, 2]


def test_a_kill_switch_waits_for_no_store_and_is_audited_later(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    from control_grid import Grid, started

    async def check() -> None:
        loop, _ = await started(Grid(), store)
        write, works = store.add_audit, False

        def add(entry: AuditEntry) -> None:
            if not works:
                raise ControlError("disk full")
            write(entry)

        monkeypatch.setattr(store, "add_audit", add)
        assert (await loop.pause("now", BY)).paused
        assert "audit" in loop.reasons()
        works = True
        await loop.step()
        assert "audit" not in loop.reasons()
        assert [e.action for _, e in store.audit(10)] == ["pause"]

    asyncio.run(check())


# --- who -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("ipv4:127.0.0.1:4242", ("127.0.0.1", 4242)),
        ("ipv6:%5B::1%5D:4242", ("::1", 4242)),
        ("ipv6:[::1]:4242", ("::1", 4242)),
        ("unix:/run/x.sock", ("unix:/run/x.sock", 0)),
        ("nonsense", ("nonsense", 0)),
    ],
)
def test_the_address_of_a_peer(text: str, address: tuple[str, int]) -> None:
    assert address_of(text) == address


@pytest.mark.parametrize("family", ["127.0.0.1", "::1"])
def test_the_owner_of_a_connection(family: str) -> None:
    import socket

    kind = socket.AF_INET6 if ":" in family else socket.AF_INET
    with socket.socket(kind) as server:
        try:
            server.bind((family, 0))
        except OSError:
            pytest.skip(f"no {family} on this machine")
        server.listen()
        with socket.create_connection(server.getsockname()[:2]) as client:
            assert owner(family, client.getsockname()[1]) == os.getuid()
        assert owner(family, server.getsockname()[1]) is None  # it listens: nobody's call


def test_no_owner_beyond_loopback_or_without_the_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert owner("192.0.2.1", 80) is None
    assert owner("not an address", 80) is None
    monkeypatch.setattr(peer, "PROC_NET", tmp_path)
    assert owner("127.0.0.1", 80) is None


class Context:
    def __init__(self, where: str, names: tuple[bytes, ...] = ()) -> None:
        self._where, self._names = where, names

    def peer(self) -> str:
        return self._where

    def auth_context(self) -> dict[str, tuple[bytes, ...]]:
        return {"x509_common_name": self._names} if self._names else {}


def test_a_name_that_would_spoil_a_log_is_made_harmless() -> None:
    context = Context("ipv4:192.0.2.7:9", (b"a\nb" + b"x" * 500,))
    who = peer.caller(context, "").who
    assert who.startswith("CN=a?bx")
    assert len(who) == peer.MAX_WHO


def test_beyond_loopback_without_a_certificate_there_is_the_address() -> None:
    assert peer.caller(Context("ipv4:192.0.2.7:9"), "me") == Caller("192.0.2.7", "address", "me")
