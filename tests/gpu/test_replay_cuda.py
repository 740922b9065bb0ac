# SPDX-License-Identifier: Apache-2.0
"""`sprout replay --device cuda` comes to what `--device cpu` does.

`scripts/gpu_check` runs this on a machine with a GPU.
"""

import csv
from pathlib import Path

import pytest

from sprout_ext.sampler import cuda_available, cuda_built

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not cuda_built(), reason="the core is built without CUDA"),
    pytest.mark.skipif(not cuda_available(), reason="no NVIDIA GPU"),
]
pytest.importorskip("pydantic")
pytest.importorskip("typer")
pytest.importorskip("scipy.sparse")


def test_the_same_results(tmp_path: Path) -> None:
    from predict_synthetic import fitted, make_told

    from sprout.cli import run
    from sprout.predict.document import save

    bundle = make_told(tmp_path / "bundle")
    save(fitted(bundle)[1], tmp_path / "predictor")
    other = make_told(tmp_path / "other", seed=2)  # whose texts the predictor has not seen
    arguments = ["replay", "--bundle", str(other), "--predictor", str(tmp_path / "predictor")]
    arguments += ["--scheme", "SPROUT,SPROUT_STA,PROMPT,PROMPT_BANK", "--target", "0.95"]
    arguments += ["--requests", "5000", "--zone", "AA"]
    found = {}
    for device in ("cpu", "cuda"):
        assert run([*arguments, "--out", str(tmp_path / device), "--device", device]) == 0
        with (tmp_path / device / "results.csv").open() as file:
            found[device] = list(csv.DictReader(file))
        assert {row.pop("device") for row in found[device]} == {device}
    assert len(found["cpu"]) == 8
    # Six digits: draws and choices are the same, and no text is so near a tie that 1e-11 decides.
    assert found["cpu"] == found["cuda"]
