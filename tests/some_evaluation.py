# SPDX-License-Identifier: Apache-2.0
"""An evaluation as an evaluator would report it, for tests."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from sprout.directives import pack
from sprout.evaluate import findings
from sprout.optimize.contrast import multinomial
from sprout.v1 import control_pb2 as pb

PACK = pack("explicit")


def evaluation(
    id_: str = "e1",
    q: Sequence[float] = (0.40, 0.34, 0.26),
    judged: int = 400,
    *,
    classes: Mapping[str, tuple[Sequence[float], int]] | None = None,
    age_s: float = 60.0,
    covariance: bool = True,
) -> pb.Evaluation:
    """q (levels,) of all together; classes: task -> (q, prompts). Covariances are shares'."""
    ended = time.time() - age_s
    made = pb.Evaluation(
        id=id_,
        pack=PACK.name,
        pack_hash=PACK.hash,
        levels=PACK.levels,
        judge="exact",
        method="choice",
        prompts="sampled",
        stopped="every prompt judged",
    )
    made.started_at.FromNanoseconds(int((ended - 600) * 1e9))
    made.finished_at.FromNanoseconds(int(ended * 1e9))
    for task, (preference, n) in {"": (q, judged), **(classes or {})}.items():
        s = multinomial(np.array(preference), n).ravel() if covariance else ()
        made.classes.add(task=task, judged=n, preference=preference, covariance=s)
    return made


def of_findings(found: findings.Findings, method: str) -> pb.Evaluation:
    """What is reported of them, in the pack "paper"."""
    paper = pack("paper")
    made = pb.Evaluation(
        id="x",
        pack=paper.name,
        pack_hash=paper.hash,
        levels=paper.levels,
        judge="test",
        method=method,
        classes=found.classes,
        bias=found.bias,
    )
    made.started_at.seconds, made.finished_at.seconds = 1, 2
    return made
