# SPDX-License-Identifier: Apache-2.0
"""What is known of the levels and of the node that serves them.

levels.py   e, p, q by level: priors, measurements and what happens between the two
cost.py     grams by level, from those
live.py     the measurements, from outcomes
change.py   whether the engine is still the one that was profiled
power.py    node watts from tokens per second and busy time; service.py: seconds and requests in
            flight; energy.py: attributed and marginal energy from both
document.py `profile.json`, what `sprout profile` writes and the control plane reads
Everything in here is pure but for reading that file.
"""

from sprout.profile.levels import (
    MARGINAL,
    MEASURED,
    NOTHING,
    PREFERENCE_PRIOR,
    PRIOR,
    RESCALED,
    LevelProfile,
    Measured,
    build,
    decide_on,
    moved,
)

__all__ = [
    "MARGINAL",
    "MEASURED",
    "NOTHING",
    "PREFERENCE_PRIOR",
    "PRIOR",
    "RESCALED",
    "LevelProfile",
    "Measured",
    "build",
    "decide_on",
    "moved",
]
