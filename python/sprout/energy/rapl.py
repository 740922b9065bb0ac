# SPDX-License-Identifier: Apache-2.0
"""RAPL: the CPU packages' and their memory's own energy counters, through Linux's powercap files.

`<root>/intel-rapl:N/` is a zone: `name`, `energy_uj` (cumulative, in microjoules, wraps after
`max_energy_range_uj`), and subzones `intel-rapl:N:M/`. AMD's counters appear under the same names.
Counted are the packages and `dram`. Not counted, because a package has them already: `core` and
`uncore`; and `psys`, which has the packages. https://docs.kernel.org/power/powercap/powercap.html
"""

import logging
from dataclasses import dataclass
from pathlib import Path

from sprout.energy.tally import NOTHING, Memory, Tally
from sprout.errors import PrerequisiteError

log = logging.getLogger(__name__)

DEFAULT_ROOT = Path("/sys/class/powercap")
_UJ_PER_JOULE = 1e6


@dataclass(frozen=True)
class Zone:
    key: str  # intel-rapl:0, intel-rapl:0:2
    label: str  # package-0, dram
    counter: Path
    wraps_at_uj: int


class RaplMeter:
    """Joules of all packages and their memory. PrerequisiteError where they can't be read.

    An agent that is away for longer than a counter takes to wrap (a quarter of an hour at the
    soonest, on common parts) misses whole turns of it: too little is counted, never too much.
    """

    estimated = False

    def __init__(
        self,
        root: Path = DEFAULT_ROOT,
        memory: Memory = NOTHING,
        *,
        fallback_watts: float = 0.0,
    ) -> None:
        """fallback_watts: the prior where the parts don't tell their power limit."""
        self._zones = zones(root)
        self._tally = Tally(memory, {zone.key for zone in self._zones}, raw_per_joule=_UJ_PER_JOULE)
        self.problem = ""
        for zone in self._zones:
            self._tally.update(zone.key, _permitted(zone.counter), wraps_at=zone.wraps_at_uj)
        packages = sum(zone.label.startswith("package") for zone in self._zones)
        dram = ", dram" if packages < len(self._zones) else ""
        self.name = f"rapl ({packages} package{'s' if packages > 1 else ''}{dram})"
        self.prior_watts = _limit_watts(self._zones) or fallback_watts

    @property
    def whole(self) -> bool:
        """A counter that turns is a reading late, which is no gap."""
        return not self.problem

    def read(self) -> float:
        """Joules since the meter's start; what can't be read at the moment is made up for later."""
        problem = ""
        for zone in self._zones:
            try:
                raw = int(zone.counter.read_text())
            except (OSError, ValueError) as error:
                problem = f"rapl: can't read {zone.counter}: {error}"
            else:
                self._tally.update(zone.key, raw, wraps_at=zone.wraps_at_uj)
        if problem and problem != self.problem:
            log.warning("%s; its energy stands still", problem)
        self.problem = problem
        return self._tally.joules

    def memory(self) -> Memory:
        return self._tally.memory()

    def close(self) -> None:
        """Nothing is held."""


def zones(root: Path) -> tuple[Zone, ...]:
    """The zones that are counted, in a fixed order. PrerequisiteError: there are none."""
    found = []
    for package in sorted(root.glob("intel-rapl:*")):
        label = _label(package)
        if package.name.count(":") > 1 or not label.startswith("package"):
            continue  # a subzone, which /sys/class lists beside its package; or psys
        found.append(_zone(package, label))
        found += [
            _zone(part, "dram")
            for part in sorted(package.glob("intel-rapl:*:*"))
            if _label(part) == "dram"
        ]
    if not found:
        raise PrerequisiteError(
            f"no RAPL counter under {root}: bare metal has them (modprobe intel_rapl_common; "
            "AMD: Linux 5.8 or later), virtual machines seldom do; in a container mount the host's "
            "/sys/devices/virtual/powercap/intel-rapl and set energy.rapl_root to it"
        )
    return tuple(found)


def _label(zone: Path) -> str:
    try:
        return (zone / "name").read_text().strip()
    except OSError:
        return ""


def _zone(folder: Path, label: str) -> Zone:
    wraps_at_uj = _permitted(folder / "max_energy_range_uj")
    return Zone(folder.name, label, folder / "energy_uj", wraps_at_uj)


def _permitted(file: Path) -> int:
    try:
        return int(file.read_text())
    except PermissionError:
        raise PrerequisiteError(
            f"{file} may be read by root alone: let the agent's user read it (docs/energy.md has a "
            "rule for udev)"
        ) from None
    except (OSError, ValueError) as error:
        raise PrerequisiteError(f"{file} can't be read ({error}): is it a RAPL zone?") from None


def _limit_watts(found: tuple[Zone, ...]) -> float:
    """Sum of the packages' long-term power limits; 0 where one does not tell."""
    watts = 0.0
    for zone in found:
        if zone.label.startswith("package"):
            try:
                limit_uw = int((zone.counter.parent / "constraint_0_power_limit_uw").read_text())
            except (OSError, ValueError):
                return 0.0
            watts += limit_uw / 1e6
    return watts
