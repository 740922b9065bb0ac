# SPDX-License-Identifier: Apache-2.0
"""Several measurements on one engine, which takes a minute or more to start.

    python benchmarks/gpu/all.py --model 13b --bundle BUNDLE --out results [--parts closed open]

Each writes its JSON as soon as it has ended.
"""

import argparse
import sys
import traceback

import closed_loop
import energy_tokens
import open_loop
from _run import bench, parser, write
from table import render

PARTS = {
    "energy": ("energy_tokens", energy_tokens.measure),
    "closed": ("closed_loop", closed_loop.measure),
    "open": ("open_loop", open_loop.measure),
}


def given() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for part in (energy_tokens, closed_loop, open_loop):
        part.options(options)
    return options.parse_args()


def main() -> int:
    arguments = given()
    failed = 0
    with bench(arguments) as (made, head):
        print(f"the engine started in {head['start_s']} s", flush=True)
        for name in arguments.parts:
            measurement, measure = PARTS[name]
            try:
                found = {"measurement": measurement, **head, **measure(made, arguments)}
            except Exception:  # the others are still worth having
                traceback.print_exc()
                failed = 1
                continue
            print(f"{write(arguments, measurement, found)}\n\n{render([found])}\n", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
