# SPDX-License-Identifier: Apache-2.0
"""The agent's tick: meter, read the ledger, settle, put finished flights on the spool.

The order keeps every outcome: committed to the spool first, released in the ledger after. A kill
between the two makes a second copy, which the control plane knows by (segment_uid, ticket).
"""

import logging
import time
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from sprout.agent.outcome import OutcomeWriter, active_ends, endings
from sprout.agent.segments import Segments
from sprout.agent.settle import RUNNING, Settlement, Span
from sprout.agent.spool import Spool
from sprout.config import Config
from sprout.energy.meters import Meter
from sprout.errors import SpoolError
from sprout.units import NS_PER_S
from sprout_ext.clock import ClockWriter
from sprout_ext.ledger import SegmentReader

log = logging.getLogger(__name__)

# Between reading the meter and reading the ledger: a record that is being written gets its time.
LATE_RECORD_S = 0.003
# A spool that failed is not tried again at every tick.
SPOOL_RETRY_NS = NS_PER_S


@dataclass(frozen=True)
class Sample:
    """What the last tick saw."""

    active: int = 0  # requests in the engine
    metered_joules: float = 0.0
    settled_joules: float = 0.0
    idle_joules: float = 0.0
    unattributed_joules: float = 0.0
    spool_failed: int = 0  # times that the spool refused, since the start
    counters: dict[str, int] = field(default_factory=dict)


class _Scan(NamedTuple):
    """One segment at one tick."""

    reader: SegmentReader
    alive: bool
    records: NDArray[np.void]
    ending: NDArray[np.uint8]
    spans: list[Span]


class Drain:
    """Owns meter, energy clock and ledger; one thread calls `tick`."""

    def __init__(
        self, cfg: Config, node_id: int, meter: Meter, clock: ClockWriter, spool: Spool
    ) -> None:
        self._abandoned_after_s = cfg.agent.abandoned_after_s
        self._lease_s, self._queue_lease_s = cfg.agent.lease_s, cfg.agent.queue_lease_s
        # A slot that is not ours says of nothing that it has arrived.
        theirs = cfg.engine.kind == "external"
        self._arrival_lease_s = self._queue_lease_s if theirs else cfg.agent.arrival_lease_s
        self._meter = meter
        self._clock = clock
        self._spool = spool
        self._segments = Segments(cfg.stack.shm)
        self._settlement = Settlement(clock)
        self._writer = OutcomeWriter(cfg, node_id, estimated=meter.estimated)
        self._spool_failed = 0
        self._spool_retry_ns = 0
        self.sample = Sample()
        if clock.last_t_ns == 0:
            clock.prior_rate(meter.prior_watts)

    def tick(self) -> None:
        """Settle up to now and drain what has ended. Some milliseconds, most of them asleep."""
        now_ns, joules = time.monotonic_ns(), self._meter.read()
        time.sleep(LATE_RECORD_S)
        scans = [self._scan(reader, now_ns) for reader in self._segments.refresh()]
        spans = [span for scan in scans for span in scan.spans]
        self._settlement.tick(now_ns, joules, self._meter.estimated, spans, whole=self._meter.whole)
        self._drain(scans, now_ns)
        self.sample = Sample(
            active=sum(span.start_ns > 0 and span.end_ns == RUNNING for span in spans),
            metered_joules=self._clock.metered_joules,
            settled_joules=self._clock.settled_joules,
            idle_joules=self._clock.idle_joules,
            unattributed_joules=self._clock.unattributed_joules,
            spool_failed=self._spool_failed,
            counters=self._segments.counters(),
        )

    def _scan(self, reader: SegmentReader, now_ns: int) -> _Scan:
        alive = reader.alive  # before the records: the dead write no more
        records = reader.scan()
        if not len(records):  # as always where the segment has counters alone
            return _Scan(reader, alive, records, np.zeros(0, np.uint8), [])
        ending = endings(
            records,
            now_ns,
            owner_alive=alive,
            abandoned_after_s=self._abandoned_after_s,
            lease_s=self._lease_s,
            queue_lease_s=self._queue_lease_s,
            arrival_lease_s=self._arrival_lease_s,
        )
        ends = active_ends(records, ending, owner_alive=alive)
        uid = reader.uid
        columns = (records["ticket"].tolist(), records["scheduled_ns"].tolist(), ends.tolist())
        spans = [Span((uid, t), start, end) for t, start, end in zip(*columns, strict=True)]
        return _Scan(reader, alive, records, ending, spans)

    def _drain(self, scans: list[_Scan], now_ns: int) -> None:
        """Spool, then release, what has ended and is settled; reclaim what the dead left."""
        if now_ns < self._spool_retry_ns:
            return
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        outcomes: list[bytes] = []
        ended: list[tuple[SegmentReader, int, int]] = []
        drained: list[SegmentReader] = []  # of the dead, with nothing left in them
        for scan in scans:
            over = np.flatnonzero(scan.ending).tolist()
            shares = [self._settlement.share(scan.spans[i].key) for i in over]
            # Not those whose end lies after this tick.
            final = [i for i, share in zip(over, shares, strict=True) if share.final]
            if final:
                records = scan.records[final]
                outcomes += self._writer.write(
                    records,
                    segment_uid=scan.reader.uid,
                    stub_index=scan.reader.stub_index,
                    ending=scan.ending[final].tolist(),
                    shares=[share for share in shares if share.final],
                    wall_offset_ns=wall_offset_ns,
                )
                places = (records["slot"].tolist(), records["generation"].tolist())
                ended.extend((scan.reader, *place) for place in zip(*places, strict=True))
            if len(final) == len(scan.records) and not scan.alive:
                drained.append(scan.reader)
        try:
            self._spool.append(outcomes)
        except SpoolError as error:
            # They stay in the ledger, which is bounded; a full one costs records, no requests.
            if self._spool_retry_ns == 0:
                log.error("%d finished flights stay in the ledger: %s", len(ended), error)
            self._spool_failed += 1
            self._spool_retry_ns = now_ns + SPOOL_RETRY_NS
            return
        if self._spool_retry_ns:
            log.warning("the spool takes outcomes again")
            self._spool_retry_ns = 0
        for reader, slot, generation in ended:
            reader.release(slot, generation)
        for reader in drained:
            self._segments.retire(reader)
