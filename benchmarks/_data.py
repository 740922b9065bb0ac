# SPDX-License-Identifier: Apache-2.0
"""The published measurements: in the folder that SPROUT_DATA names, or ../shared/data beside the
checkout. And the windows of 2023 on which they are replayed."""

import os
from pathlib import Path

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[2] / "shared" / "data"))
BUNDLE = DATA / "sprout2023"
CARBON = BUNDLE / "carbon"  # a trace a zone (Electricity Maps, ODbL 1.0)
ZONES = ("US-TEX-ERCO", "US-CAL-CISO", "AU-SA", "NL", "GB")
STARTS, WINDOW_H = (800, 3900, 7000), 720  # hours of the year
EMBODIED_G_PER_S = 1.6715e-4
