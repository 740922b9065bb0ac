# SPDX-License-Identifier: Apache-2.0
"""The committed generated code is what the .proto generates."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "python" / "sprout" / "v1"
FILES = ("control_pb2.py", "control_pb2.pyi", "control_pb2_grpc.py", "control_pb2_grpc.pyi")


def test_generated_code_matches_the_proto(tmp_path: Path) -> None:
    pytest.importorskip("grpc_tools", reason="grpcio-tools (dev extra) is not installed")
    committed = (GENERATED / "control_pb2_grpc.py").read_text()
    if f"GRPC_GENERATED_VERSION = '{version('grpcio-tools')}'" not in committed:
        pytest.skip(f"generated with another grpcio-tools than {version('grpcio-tools')}")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "proto"), str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    for name in FILES:
        fresh = (tmp_path / "sprout" / "v1" / name).read_text()
        assert fresh == (GENERATED / name).read_text(), f"{name} is stale: run scripts/proto"


def test_outcome_key_fields_hold_all_64_bits() -> None:
    from sprout.v1 import control_pb2 as pb

    outcome = pb.Outcome(segment_uid=2**64 - 1, ticket=2**63, node_id=2**64 - 1)
    again = pb.Outcome.FromString(outcome.SerializeToString())
    assert (again.segment_uid, again.ticket, again.node_id) == (2**64 - 1, 2**63, 2**64 - 1)
