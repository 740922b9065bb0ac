# SPDX-License-Identifier: Apache-2.0
"""From a profiling run to a profile: rows for people, fits for decisions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sprout.profile.change import Costs, Reference, learn
from sprout.profile.document import OUTCOMES, SCHEMA, LevelTokens, Made, Profile
from sprout.profile.energy import AttributedEnergy, by_band
from sprout.profile.power import PowerFit, fit
from sprout.profile.service import ServiceModel, fit_service
from sprout.profile.spans import concurrency
from sprout.serve.profiling import Measurement

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Row:
    """One condition for people. None: nothing ended in its windows, or no receipt spoke."""

    condition: str
    requests: int
    requests_per_s: float
    watts: float
    in_flight: float
    busy: float
    tokens: float | None  # per answer
    node_j_per_request: float | None  # idle included
    node_j_per_token: float | None
    attributed_j_per_request: float | None  # mean receipt
    p50_s: float | None
    p99_s: float | None
    shed: int


@dataclass(frozen=True)
class _Answers:
    """Every measured answer of the run; columns (n,)."""

    level: NDArray[np.int64]
    seconds: Floats
    input_tokens: Floats
    output_tokens: Floats
    in_flight: Floats  # beside it, itself included
    receipt_joules: Floats
    settled_joules: Floats  # nan: not known


def row(measurement: Measurement) -> Row:
    windows, shots = measurement.windows, measurement.measured
    seconds, joules = sum(w.seconds for w in windows), sum(w.joules for w in windows)
    tokens = sum(w.decode_tokens for w in windows)
    requests = sum(w.requests for w in windows)
    receipts = [s.reply.energy_joules for s in shots if np.isfinite(s.reply.energy_joules)]
    took = [s.end_s - s.start_s for s in shots]
    return Row(
        condition=str(measurement.condition),
        requests=requests,
        requests_per_s=requests / seconds,
        watts=joules / seconds,
        in_flight=sum(w.active_seconds for w in windows) / seconds,
        busy=sum(w.busy_seconds for w in windows) / seconds,
        tokens=float(np.mean([s.reply.output_tokens for s in shots])) if shots else None,
        node_j_per_request=joules / requests if requests else None,
        node_j_per_token=joules / tokens if tokens else None,
        attributed_j_per_request=float(np.mean(receipts)) if receipts else None,
        p50_s=float(np.quantile(took, 0.5)) if took else None,
        p99_s=float(np.quantile(took, 0.99)) if took else None,
        shed=measurement.shed,
    )


def analyse(
    measurements: Sequence[Measurement], made: Made, levels: Sequence[str]
) -> tuple[Profile, list[str]]:
    """(the profile, what could not be fitted and why)"""
    answers = _answers(measurements)
    windows = tuple(w for m in measurements for w in m.windows)
    notes: list[str] = []
    power: PowerFit | None = None
    service: ServiceModel | None = None
    reference: Reference | None = None
    try:
        power = fit(windows, seed=made.seed)
    except ValueError as error:
        notes.append(f"no power model: {error}")
    try:
        service = fit_service(
            answers.seconds, answers.input_tokens, answers.output_tokens, answers.in_flight
        )
    except ValueError as error:
        notes.append(f"no model of the time per request: {error}")
    try:
        # Of what outcomes say, for outcomes are what it is compared with: settled joules, and
        # company by the engine's times. Receipts and a client's spans would look like a change.
        reference = learn(
            Costs(answers.level, answers.settled_joules, answers.output_tokens, answers.in_flight)
        )
    except ValueError as error:
        why = str(error)
        if not np.isfinite(answers.settled_joules).any():
            why = (
                "no answer's settled energy is known: that needs the agent on this machine, and an "
                "engine that tells its times"
            )
        notes.append(
            f"no reference for the change-point test ({why}): the control plane learns its own"
        )
    profile = Profile(
        schema_version=SCHEMA,
        made=made,
        levels=tuple(_tokens(answers, i, level) for i, level in enumerate(levels)),
        windows=windows,
        power=power,
        service=service,
        attributed=tuple(_bands(answers, levels, estimated=made.energy_estimated)),
        reference=reference,
        reference_basis=OUTCOMES if reference else "",
    )
    return profile, notes


def _answers(measurements: Sequence[Measurement]) -> _Answers:
    columns: list[tuple[float, ...]] = []
    for m in measurements:
        start, end = np.array([s.work_s for s in m.shots], np.float64).reshape(-1, 2).T
        counts = {id(s): joules for s, joules in zip(m.measured, m.settled_joules, strict=True)}
        # With those of warm-up and drain: they were company too.
        for s, n in zip(m.shots, concurrency(start, end), strict=True):
            if id(s) in counts:
                r, (begin, over) = s.reply, s.work_s
                columns.append(
                    (
                        *(r.level, over - begin, r.input_tokens, r.output_tokens),
                        *(n, r.energy_joules, counts[id(s)]),
                    )
                )
    level, *rest = np.array(columns, np.float64).reshape(-1, 7).T
    return _Answers(level.astype(np.int64), *rest)


def _tokens(answers: _Answers, index: int, level: str) -> LevelTokens:
    own = answers.level == index
    n = int(own.sum())
    means = [
        float(t[own].mean()) if n else 0.0 for t in (answers.input_tokens, answers.output_tokens)
    ]
    return LevelTokens(level, means[0], means[1], n)


def _bands(answers: _Answers, levels: Sequence[str], *, estimated: bool) -> list[AttributedEnergy]:
    rows: list[AttributedEnergy] = []
    for i, level in enumerate(levels):
        own = (answers.level == i) & np.isfinite(answers.receipt_joules)
        if own.any():
            rows += by_band(
                level, answers.receipt_joules[own], answers.in_flight[own], estimated=estimated
            )
    return rows
