# SPDX-License-Identifier: Apache-2.0
"""perf_analyzer on one model, and what it saw."""

import itertools
import json
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

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

    @property
    def p99_ms(self) -> float:
        return self.latencies_ms[int(0.99 * (len(self.latencies_ms) - 1))]


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
        seen = json.loads(export.read_text())["experiments"][0]["requests"]
    latencies = sorted((r["response_timestamps"][-1] - r["timestamp"]) / 1e6 for r in seen)
    span_s = (
        max(r["response_timestamps"][-1] for r in seen) - min(r["timestamp"] for r in seen)
    ) / 1e9
    chunks = sum(len(r["response_timestamps"]) for r in seen)
    firsts = sorted((r["response_timestamps"][0] - r["timestamp"]) / 1e6 for r in seen)
    gaps = sorted(
        (b - a) / 1e6 for r in seen for a, b in itertools.pairwise(r["response_timestamps"])
    )
    return Profile(latencies, len(seen) / span_s, chunks / span_s, firsts, gaps)
