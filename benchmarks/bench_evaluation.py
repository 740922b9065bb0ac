# SPDX-License-Identifier: Apache-2.0
"""How honest are q's intervals, how many judgments does stopping in time save, what do a judge's
leanings do to q, what does shrinkage gain? On the published preferences, the truth being known.

The truth is q of all recorded preferences, as choices among three levels. Evaluations are drawn
from them *with replacement*. A situation is a task class, or one hour's published mix of them, with
the grid of a day (five zones, three windows of 2023): the plan is made for four hours of it.

    python benchmarks/bench_evaluation.py [coverage] [stopping] [limits] [bias] [shrinkage] [cost]
        [--quick]

`stopping` compares with a fixed sample: the smallest n at which the regret over a 95 % region *made
for that n* (Wilson's bounds, shared among the levels as the region's are) is within the limits with
a probability of 95 %,
    planned    in every situation: one size, chosen before q is known
    foreseen   in the very situation, as if its q were known beforehand; mean over situations
(these solve the program by `closed_form`, the rule itself uses `lp`) and lists how often the region
and the fixed-size intervals held the truth, and the true regret its limits, when sampling stopped.

`limits` says what so many prompts can tell: the regret over the region, at the hours that a running
evaluation plans for (`evaluate.horizon`), by the pairwise judge of `stopping`.

Data from the folder that SPROUT_DATA names, or ../shared/data beside the checkout.
"""

import argparse
import sys
from collections.abc import Callable

from _data import BUNDLE
from _evaluation import Recorded
from _evaluation_bias import bias
from _evaluation_coverage import coverage
from _evaluation_limits import limits
from _evaluation_shrinkage import shrinking
from _evaluation_stopping import cost, stopping


def main() -> int:
    parser = argparse.ArgumentParser(description="q's statistics on the published preferences")
    names = ("coverage", "stopping", "limits", "bias", "shrinkage", "cost")
    parser.add_argument("parts", nargs="*", help="of " + ", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a tenth of the runs")
    options = parser.parse_args()
    unknown = set(options.parts) - set(names)
    if unknown:
        parser.error(f"no such part: {sorted(unknown)}")
    if not BUNDLE.is_dir():
        print(f"no replay data at {BUNDLE} (SPROUT_DATA)", file=sys.stderr)
        return 1
    data = Recorded()
    few = 10 if options.quick else 1
    parts: dict[str, Callable[[], None]] = {
        "coverage": lambda: coverage(data, 2000 // few),
        "bias": lambda: bias(data, 20 // few),
        "shrinkage": lambda: shrinking(data, 300 // few),
        "cost": lambda: cost(100),
        "limits": lambda: limits(data, 20 // few),
        "stopping": lambda: stopping(data, 10 // few, 40_000),
    }
    for name, part in parts.items():
        if not options.parts or name in options.parts:
            part()
    return 0


if __name__ == "__main__":
    sys.exit(main())
