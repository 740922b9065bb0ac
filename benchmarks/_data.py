# SPDX-License-Identifier: Apache-2.0
"""Where the published data are: in the folder that SPROUT_DATA names, or ../shared/data beside the
checkout."""

import os
from pathlib import Path

DATA = Path(os.environ.get("SPROUT_DATA", Path(__file__).parents[2] / "shared" / "data"))
BUNDLE = DATA / "sprout2023"
CARBON = BUNDLE / "carbon"  # a trace a zone (Electricity Maps, ODbL 1.0)
