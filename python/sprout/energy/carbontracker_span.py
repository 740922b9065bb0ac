# SPDX-License-Identifier: Apache-2.0
"""Run by the interpreter of CarbonTracker's own environment, never imported by Sprout.

`python -I carbontracker_span.py LOG_DIR READY_FD`: tracks from the moment at which it writes a byte
to READY_FD until its standard input ends, which it does as well when whoever started it has died.
"""

import os
import sys

from carbontracker.tracker import CarbonTracker  # type: ignore[import-not-found]

if __name__ == "__main__":
    tracker = CarbonTracker(
        epochs=1,
        epochs_before_pred=0,
        monitor_epochs=1,
        ignore_errors=True,  # else an error is os._exit(70), and the log says less
        interpretable=False,
        log_dir=sys.argv[1],
        verbose=0,
    )
    tracker.epoch_start()
    os.write(int(sys.argv[2]), b"1")
    sys.stdin.read()
    tracker.epoch_end()
    tracker.stop()
