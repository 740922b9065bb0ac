# SPDX-License-Identifier: Apache-2.0
"""The core's C++ stress programs under ThreadSanitizer, AddressSanitizer and UBSan."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
@pytest.mark.skipif(not (ROOT / "scripts/sanitize").exists(), reason="not a checkout")
def test_core_under_sanitizers():
    if shutil.which("cmake") is None and not (ROOT / ".venv/bin/cmake").exists():
        pytest.skip("no cmake")
    done = subprocess.run(
        [ROOT / "scripts/sanitize", "1"], capture_output=True, text=True, check=False, timeout=580
    )
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.count("no fault") == 16
