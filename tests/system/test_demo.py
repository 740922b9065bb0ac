# SPDX-License-Identifier: Apache-2.0
"""`sprout demo` as a script runs it: everything real, and the exit code tells."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def test_the_demo_really_happens(tmp_path: Path) -> None:
    picture = tmp_path / "demo.png"
    done = subprocess.run(
        [sys.executable, "-m", "sprout.cli", "demo", "--json", "--picture", str(picture)],
        capture_output=True,
        text=True,
        timeout=580,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    document = json.loads(done.stdout)
    assert document["ok"]
    assert all(check["ok"] for check in document["checks"])
    assert len(document["requests"]) == 3 + 3 * 12
    assert [shot["level"] for shot in document["requests"][:3]] == ["L0", "L1", "L2"]
    arms = document["arms"]
    # At the low end of the range the floor is L0's own preference: nothing may be given up.
    assert arms["low"]["mix"] == {"L0": 12}
    assert arms["low"]["output_tokens"] >= arms["high"]["output_tokens"]
    assert document["energy_estimated"] is True
    assert picture.read_bytes().startswith(b"\x89PNG")
