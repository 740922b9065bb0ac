# SPDX-License-Identifier: Apache-2.0
"""perf_analyzer on one model, and what it saw."""

import itertools
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "perf_analyzer"))
from summary import figures, read

TIMEOUT_S = 600


@dataclass(frozen=True)
class Profile:
    """Of the requests behind the warm-up."""

    latencies_ms: list[float]  # ascending, to the last response
    requests_per_s: float
    chunks_per_s: float
    firsts_ms: list[float]  # ascending, to the first response
    gaps_ms: list[float]  # ascending, between two responses of a request

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.latencies_ms)


def profile(
    perf_analyzer: str,
    model: str,
    url: str,
    inputs: Path,
    *,
    concurrency: int,
    requests: int,
    warmup: int,
    streaming: bool = True,
    timeout_s: float = TIMEOUT_S,
) -> Profile:
    """url: "host:port" of Triton's gRPC. streaming: of the call; whether the answer comes in parts
    is the inputs' `stream`. SystemExit with its words where it has no result."""
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder) / "profile.json"
        command = [
            perf_analyzer, "-m", model, "-i", "grpc", "-u", url, "--async",
            *(["--streaming"] if streaming else []),
            "--input-data", str(inputs), "--concurrency-range", str(concurrency),
            "--request-count", str(requests), "--warmup-request-count", str(warmup),
            "--profile-export-file", str(export),
        ]  # fmt: skip
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=timeout_s
        )
        if not export.exists():
            raise SystemExit(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        [run] = read(export)
    seen, found = run.requests, figures(run)
    return Profile(
        sorted((r.answered_ns[-1] - r.sent_ns) / 1e6 for r in seen),
        found.done_per_s,
        found.chunks_per_s,
        sorted((r.answered_ns[0] - r.sent_ns) / 1e6 for r in seen),
        sorted((b - a) / 1e6 for r in seen for a, b in itertools.pairwise(r.answered_ns)),
    )
