# SPDX-License-Identifier: Apache-2.0
"""Priors whose mixes can be worked out by hand: the floor of 0.9 leaves a third at L0."""

ROUND_PRIORS = {
    "prior_energy_joules": (60.0, 20.0, 12.0),
    "prior_device_s": (3.0, 1.0, 0.6),
    "prior_preference": (0.40, 0.34, 0.26),
    "exploration_share": 0.0,
}
