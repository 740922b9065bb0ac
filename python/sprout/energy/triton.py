# SPDX-License-Identifier: Apache-2.0
"""Triton's own `nv_energy_consumption`: joules by GPU, as its metrics port tells them.

For an agent that may see Triton but no GPU. Triton counts from its own start and looks every two
seconds (`--metrics-interval-ms`), so this is the coarsest of the meters that measure.
"""

import logging
import math
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from sprout.energy.tally import NOTHING, Memory, Tally
from sprout.errors import PrerequisiteError

log = logging.getLogger(__name__)

POLL_S = 0.5
TIMEOUT_S = 1.0
NOT_ASKED = "triton: not asked yet"
LONGEST_STEP_S = 5.0  # what came after a longer silence is not spread over as long again
_SAMPLE = re.compile(r'^(nv_\w+)\{[^}]*?gpu_uuid="([^"]+)"[^}]*\}\s+(\S+)', re.MULTILINE)


class TritonMeter:
    """Joules of the GPUs that a Triton reports.

    It needs no Triton yet: `problem` says why there is no energy, the first answer is where the
    count starts, and a Triton that was restarted counts on from what it had. What Triton used
    between the last poll and its end is lost.

    gpus: UUIDs of those that count; none = all that it reports.
    """

    estimated = False
    name = "triton (nv_energy_consumption)"

    def __init__(
        self,
        url: str,
        memory: Memory = NOTHING,
        *,
        gpus: Sequence[str] = (),
        fallback_watts: float = 0.0,
        poll_s: float | None = POLL_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """poll_s: between looks, on a thread of its own; None: whenever `poll` is called."""
        import httpx  # noqa: PLC0415 - an agent that does without stays light

        self.problem = NOT_ASKED
        self._clock = clock
        # GPUs that this Triton has reported: one that it leaves out is missed, as long as it lives.
        self._told: set[str] = set()
        self._whole_from = float("-inf")  # once it has stood still, by the clock
        self.prior_watts = fallback_watts
        self._url = url
        self._level = logging.DEBUG if poll_s is None else logging.WARNING
        self._gpus = frozenset(gpus)
        names = self._gpus or memory.counters.keys()
        self._tally = Tally(memory, set(names), raw_per_joule=1.0)
        self._ramp = Ramp(memory.joules, clock)
        self._lock = threading.Lock()
        self._http_error = httpx.HTTPError
        try:
            httpx.URL(url)
        except httpx.InvalidURL as error:
            raise PrerequisiteError(
                f"energy.triton_metrics_url is no URL ({error}): {url}"
            ) from None
        self._client = httpx.Client(timeout=TIMEOUT_S, trust_env=False)
        self._stop = threading.Event()
        self.poll()
        if poll_s is not None:
            self._thread = threading.Thread(
                target=self._poll_forever, args=(poll_s,), name="triton-meter", daemon=True
            )
            self._thread.start()

    @property
    def whole(self) -> bool:
        """It answers, and what it counted in a silence has been handed out."""
        with self._lock:
            return not self.problem and self._clock() >= self._whole_from

    def read(self) -> float:
        """Joules since the meter's start, each of Triton's steps spread over its length."""
        with self._lock:
            return self._ramp.read()

    def poll(self) -> None:
        """Ask once. Never raises: what is wrong stands in `problem`."""
        try:
            answer = self._client.get(self._url)
            answer.raise_for_status()
            text = answer.text
        except self._http_error as error:
            self._say(f"triton: {self._url} does not answer ({str(error) or type(error).__name__})")
            return
        found = {
            uuid: joules
            for uuid, joules in samples(text, "nv_energy_consumption").items()
            if not self._gpus or uuid in self._gpus
        }
        if self.problem not in ("", NOT_ASKED):  # before it is said to be over
            self._doubt()
        self._count(found)
        missing = (self._gpus or self._told) - found.keys()
        if missing or not found:
            what = f" of {', '.join(sorted(missing))}" if missing else ""
            self._say(f"triton: {self._url} has no nv_energy_consumption{what}")
        else:
            self._say("")
        limits = samples(text, "nv_gpu_power_limit")
        if found and found.keys() <= limits.keys():
            self.prior_watts = sum(limits[uuid] for uuid in found)

    def memory(self) -> Memory:
        with self._lock:
            return self._tally.memory()

    def close(self) -> None:
        self._stop.set()  # the thread is a daemon, and may be inside a call
        self._client.close()

    def _count(self, found: Mapping[str, float]) -> None:
        """Take a page's joules by GPU."""
        before = self._tally.memory().counters
        with self._lock:
            for uuid, joules in found.items():
                self._tally.update(uuid, joules)
            self._ramp.step(self._tally.joules)
        after = self._tally.memory().counters
        # Another Triton has other GPUs: counters that are believed to have begun anew, or not one
        # GPU of before.
        fell = any(after[uuid] < joules for uuid, joules in before.items())
        if fell or (found and self._told.isdisjoint(found)):
            self._told = set()
        self._told |= found.keys()
        if self._tally.doubtful:
            self._doubt()

    def _doubt(self) -> None:
        with self._lock:
            self._whole_from = self._clock() + LONGEST_STEP_S

    def _poll_forever(self, poll_s: float) -> None:
        while not self._stop.wait(poll_s):
            try:
                self.poll()
            except RuntimeError:  # the client was closed under it
                if not self._stop.is_set():
                    raise

    def _say(self, problem: str) -> None:
        if problem and problem != self.problem:
            log.log(self._level, "%s; its energy stands still", problem)
        self.problem = problem


class Ramp:
    """Hands out a coarse counter evenly: each step over as long as it took to come.

    Without it all joules of two seconds would fall into one tick, and to whoever was active then.
    The price is a lag of one step.
    """

    def __init__(self, joules: float, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._from = self._to = joules
        self._at = clock()
        self._over_s = 0.0

    def step(self, joules: float) -> None:
        """The counter's value now. One that did not move is no step."""
        if joules == self._to:
            return
        now = self._clock()
        self._from, self._to = self.read(), joules
        self._over_s = min(now - self._at, LONGEST_STEP_S)
        self._at = now

    def read(self) -> float:
        done = (self._clock() - self._at) / self._over_s if self._over_s > 0 else 1.0
        return min(self._from + (self._to - self._from) * min(done, 1.0), self._to)


def samples(text: str, metric: str) -> dict[str, float]:
    """A metric's values by gpu_uuid, in Prometheus' text format. What is no amount is left out."""
    found = {}
    for name, uuid, value in _SAMPLE.findall(text):
        if name == metric:
            try:
                number = float(value)
            except ValueError:
                continue
            if math.isfinite(number) and number >= 0:
                found[uuid] = number
    return found
