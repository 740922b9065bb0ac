# SPDX-License-Identifier: Apache-2.0
"""How often streams send: as often as the configuration wants, while the hop has room for all.

Every chunk goes through one postprocessing instance. Once the streams together send what it
carries, ends wait in its queue like everything else; clients that wait for an end ask nothing new,
and the engine decodes fewer requests than it could.
"""

from sprout.units import NS_PER_S


class Pace:
    """Of all streams of a slot; for one thread.

    interval_ns: between two chunks of a stream, now. It is `chunk_interval_ms` or, where that is
    more, so long that the streams at work send `chunks_per_s` together (0: no such bound). It is
    worked out as a stream begins or ends, not by the token.
    """

    __slots__ = ("_chunk_ns", "_least_ns", "_streams", "interval_ns")

    def __init__(self, chunk_interval_ms: float, chunks_per_s: float) -> None:
        self._least_ns = round(chunk_interval_ms * 1e6)
        self._chunk_ns = NS_PER_S / chunks_per_s if chunks_per_s > 0 else 0.0
        self._streams = 0
        self.interval_ns = self._least_ns

    def begin(self) -> None:
        """One more stream has tokens."""
        self._set(self._streams + 1)

    def end(self) -> None:
        """One of those that began has ended, however it did."""
        self._set(self._streams - 1)

    def _set(self, streams: int) -> None:
        self._streams = streams
        self.interval_ns = max(self._least_ns, round(streams * self._chunk_ns))
