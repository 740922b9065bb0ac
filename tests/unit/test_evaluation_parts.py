# SPDX-License-Identifier: Apache-2.0
"""Questions, journal, findings and horizon of an evaluation: no engine, no judge."""

import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from some_evaluation import of_findings

from sprout.config import Config
from sprout.control import quality
from sprout.directives import pack
from sprout.errors import ConfigError
from sprout.evaluate import findings, horizon, journal, questions, sittings
from sprout.evaluate.answering import Tally
from sprout.evaluate.answers import Answer, Judged, Question
from sprout.evaluate.journal import Entry, Journal, Key, Took
from sprout.evaluate.judges.account import Account, Rates
from sprout.evaluate.judges.verdict import Spent, Verdict
from sprout.v1 import control_pb2 as pb

KEY = Key("00", "v1", "pairwise", "file", ("L0", "L1", "L2"), "greedy")


def entry(number: int, **given: object) -> Entry:
    made = Entry(
        f"q{number}",
        "math",
        1.0,
        scores=(1.0, 0.5, 2.0),
        orders=((0.0, 0.5), (1.0, 1.0)),
        output_tokens=(9, 5, 2),
        took=Took(3, 16, 1.5, True, 0.25),
        prompt="why?",
        answers=("a", "b", "c"),
    )
    return replace(made, **given)  # type: ignore[arg-type]


# --- questions -----------------------------------------------------------------------------------


def test_questions_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    lines = [
        {"id": "a", "dataset": "gsm8k", "prompt": "2 + 2?", "reference": "4", "final_answer": "4"},
        {"prompt": "Who?", "task": "trivia", "reference": None},
    ]
    file.write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    assert questions.read_file(file) == [
        Question("a", "2 + 2?", "gsm8k", "4"),
        Question("line-2", "Who?", "trivia"),
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[]", "not a JSON object"),
        ("{", "f.jsonl:1"),
        pytest.param("[" * 100_000, "f.jsonl:1", id="nested"),
        ('{"prompt": ""}', "`prompt`"),
        ('{"prompt": 3}', "`prompt`"),
        ('{"prompt": "x", "task": "' + "t" * 24 + '"}', "at most 23"),
        ('{"prompt": "x", "max_tokens": -1}', "max_tokens"),
        ("", "holds no prompt"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "twice"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "f.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(ConfigError, match=said):
        questions.read_file(file)


def test_a_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read"):
        questions.read_file(tmp_path / "none.jsonl")


def test_the_fingerprint_knows_texts_and_not_their_order() -> None:
    a, b = Question("a", "x"), Question("b", "y")
    assert questions.fingerprint([a, b]) == questions.fingerprint([b, a])
    assert questions.fingerprint([a, b]) != questions.fingerprint([a, replace(b, text="z")])


# --- journal -------------------------------------------------------------------------------------

Opened = Callable[..., Journal]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens journals, and closes them all in the end."""
    made: list[Journal] = []

    def open_(*given: Any, **named: Any) -> Journal:
        made.append(journal.open_journal(*given, **named))
        return made[-1]

    yield open_
    for one in made:
        one.close()


def test_a_journal_goes_on_where_it_was(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path, KEY)
    first.add(entry(1))
    first.sitting({"judge_calls": 3})
    first.sitting({"judge_calls": 4})
    first.close()
    again = opened(tmp_path, KEY)
    assert again.id == first.id
    assert again.entries == [entry(1)]
    assert again.earlier == [{"judge_calls": 4}]
    again.add(entry(2, scores=(), orders=(), unusable=((1, "malformed"),)))
    again.sitting({"judge_calls": 1})
    again.close()
    third = opened(tmp_path, KEY)
    assert [e.id for e in third.entries] == ["q1", "q2"]
    assert third.entries[1].judged is None
    assert third.earlier == [{"judge_calls": 4}, {"judge_calls": 1}]
    third.finish({"id": third.id})
    assert opened(tmp_path, KEY).id != first.id
    assert [j.id for j in journal.finished(tmp_path)] == [first.id]


def test_a_line_that_a_kill_cut_short_is_left_out(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path, KEY)
    first.add(entry(1))
    first.close()
    for cut in (3, 30):
        with first.path.open("ab") as file:
            file.write(json.dumps({"entry": "x" * 100}).encode()[:cut])
        again = opened(tmp_path, KEY)
        assert again.id == first.id
        assert [e.id for e in again.entries] == ["q1"]
        again.close()
    again = opened(tmp_path, KEY)
    again.add(entry(2))
    again.close()
    found = journal.read(first.path)
    assert found is not None
    assert [e.id for e in found.entries] == ["q1", "q2"]


@pytest.mark.parametrize(
    "other",
    [
        replace(KEY, judge_version="v2"),
        replace(KEY, pack_hash="01"),
        replace(KEY, levels=("L0", "L1")),
        replace(KEY, prompts="others"),
        replace(KEY, sampling="hot"),
        replace(KEY, engine="another"),
        replace(KEY, draw=1),
    ],
)
def test_what_was_judged_differently_does_not_mix(
    tmp_path: Path, opened: Opened, other: Key
) -> None:
    first = opened(tmp_path, KEY)
    first.add(entry(1))
    first.close()
    second = opened(tmp_path, other)
    assert second.id != first.id
    assert not second.entries


def test_fresh_means_a_new_one(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path, KEY)
    first.close()
    assert opened(tmp_path, KEY, fresh=True).id != first.id


def test_nobody_else_reads_a_journal(tmp_path: Path, opened: Opened) -> None:
    made = opened(tmp_path / "evaluations", KEY)
    assert stat.S_IMODE(made.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.path.parent.stat().st_mode) == 0o700


def test_the_newest_finished_are_kept_and_what_can_go_on(tmp_path: Path, opened: Opened) -> None:
    """Unfinished ones, however many, take no finished one's place."""
    now = time.time()

    def write(number: int, age_s: float, *, ended: bool) -> Path:
        path = tmp_path / f"2026010{number // 10}T00000{number % 10}Z-x.jsonl"
        key = asdict(KEY)
        lines: list[dict[str, Any]] = [{"id": "x", "started_at": now - age_s, "key": key}]
        lines += [{"evaluation": {}}] if ended else []
        path.write_text("\n".join(map(json.dumps, lines)))
        return path

    ended = [write(i, 1e6, ended=True) for i in range(journal.KEPT + 3)]
    going = [write(30 + i, 60, ended=False) for i in range(5)]
    stale = [write(40 + i, journal.MAX_AGE_S + 60, ended=False) for i in range(5)]
    cut = tmp_path / "20260105T000000Z-y.jsonl"
    cut.write_text("{")
    os.utime(cut, (now - journal.MAX_AGE_S - 60,) * 2)
    journal.prune(tmp_path)
    assert set(tmp_path.iterdir()) == {*ended[3:], *going}
    assert not any(path.exists() for path in (*stale, cut))


def test_a_journal_of_an_older_evaluator_can_still_be_read(tmp_path: Path) -> None:
    key = {name: value for name, value in asdict(KEY).items() if name not in ("engine", "draw")}
    file = tmp_path / "20260101T000000Z-x.jsonl"
    lines = [{"id": "x", "started_at": 1.0, "key": key}, {"evaluation": {"id": "x"}}]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert [one.id for one in journal.finished(tmp_path)] == ["x"]


def test_what_is_about_to_be_reported_is_written_before(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path, KEY)
    first.reporting(b"\0\xff", ("said",))
    first.close()
    (kept,) = journal.unacknowledged(tmp_path)
    assert kept.unacknowledged == (b"\0\xff", ("said",))
    kept.refused()
    kept.close()
    assert list(journal.unacknowledged(tmp_path)) == []
    again = opened(tmp_path, KEY)
    assert again.id == first.id
    again.reporting(b"x", ())
    again.finish({})
    assert list(journal.unacknowledged(tmp_path)) == []


def test_who_was_left_out_is_known_until_it_is_answered(tmp_path: Path, opened: Opened) -> None:
    first = opened(tmp_path, KEY)
    first.leave_out({"q1": "EngineError", "q2": "EngineError"})
    first.leave_out({"q1": "EngineError", "q2": "EngineError"})
    first.close()
    assert first.path.read_text().count("left_out") == 1
    second = opened(tmp_path, KEY)
    second.add(entry(1))
    assert second.left_out == {"q2": "EngineError"}
    second.close()
    assert opened(tmp_path, KEY).left_out == {"q2": "EngineError"}


def test_what_a_question_took() -> None:
    answers = [
        Answer(0, "a", output_tokens=9, energy_joules=2.0, energy_estimated=False, carbon_g=0.5),
        Answer(1, "b", output_tokens=3, energy_joules=1.0, energy_estimated=False, carbon_g=0.25),
    ]
    assert Took.of(answers) == Took(2, 12, 3.0, False, 0.75)
    unknown = Took.of([*answers, Answer(2, "c")])
    assert unknown.carbon_g is None
    assert unknown.estimated


# --- findings ------------------------------------------------------------------------------------


def judged(
    rng: np.random.Generator, n: int, task: str, wins: tuple[float, float], first: float = 0.0
) -> list[Judged]:
    """Pairwise judgments: P(a level wins against L0), plus what standing first adds."""
    found = []
    for number in range(n):
        orders = []
        for p in wins:
            shown_second = float(rng.random() < min(1, max(0, p - first)))
            shown_first = float(rng.random() < min(1, max(0, p + first)))
            orders.append((shown_second, shown_first))
        scores = (1.0, *(a + b for a, b in orders))
        tokens = (100, *(int(rng.integers(10, 120)) for _ in wins))
        found.append(Judged(Question(f"{task}{number}", "", task), scores, tuple(orders), tokens))
    return found


def test_findings_are_what_the_control_plane_takes() -> None:
    rng = np.random.default_rng(1)
    rows = judged(rng, 300, "math", (0.4, 0.2)) + judged(rng, 60, "chat", (0.55, 0.5))
    found = findings.find(rows, "pairwise")
    assert [c.task for c in found.classes] == ["", "chat", "math"]
    quality.checked(of_findings(found, "pairwise"), pack("paper"), now=10.0)
    pooled, chat, math_ = found.classes
    assert pooled.judged == 360
    assert pooled.preference[0] == pytest.approx(1)
    assert math_.low[1] < 0.8 < math_.high[1]
    assert math_.low[2] < 0.4 < math_.high[2]
    assert chat.shrunk > math_.shrunk > 0


def test_a_leaning_to_what_stands_first_is_measured_and_cancelled() -> None:
    rng = np.random.default_rng(2)
    found = findings.find(judged(rng, 2000, "", (0.4, 0.25), first=0.2), "pairwise")
    assert found.bias["position"] == pytest.approx(0.2, abs=0.03)
    assert found.pooled.preferences.tolist() == pytest.approx([1, 0.8, 0.5], abs=0.05)


def test_prompts_without_a_class_are_in_the_pooled_q_alone() -> None:
    rng = np.random.default_rng(3)
    found = findings.find(judged(rng, 20, "", (0.4, 0.2)), "pairwise")
    assert [c.task for c in found.classes] == [""]


def test_exact_marks_of_a_class_that_l0_always_fails() -> None:
    rows = [
        Judged(Question(f"{task}{i}", "", task), (right, float(i % 2), 0.0))
        for task, right in (("hard", 0.0), ("easy", 1.0))
        for i in range(40)
    ]
    found = findings.find(rows, "exact")
    quality.checked(of_findings(found, "exact"), pack("paper"), now=10.0)
    assert found.classes[0].preference[0] == pytest.approx(0.5)
    assert {c.task for c in found.classes} == {"", "easy"}
    assert any("hard" in note for note in found.notes)


def test_few_prompts_are_not_corrected_for_length() -> None:
    rng = np.random.default_rng(4)
    found = findings.find(judged(rng, 5, "", (0.4, 0.2)), "pairwise", length_corrected=True)
    assert "length" in " ".join(found.notes)


def test_a_judge_of_length_is_corrected_where_chosen() -> None:
    """He prefers the longer answer by its log-odds; at equal length both are as good as L0."""
    rng = np.random.default_rng(5)
    rows = []
    for number in range(3000):
        tokens = (100, int(rng.integers(40, 160)), int(rng.integers(20, 140)))
        orders = tuple(
            tuple(
                float(rng.random() < 1 / (1 + math.exp(-2 * math.tanh((t - 100) / 35))))
                for _ in range(2)
            )
            for t in tokens[1:]
        )
        scores = (1.0, *(sum(pair) for pair in orders))
        rows.append(Judged(Question(str(number), ""), scores, orders, tokens))  # type: ignore[arg-type]
    plain = findings.find(rows, "pairwise")
    corrected = findings.find(rows, "pairwise", length_corrected=True)
    assert plain.pooled.preferences[2] < 0.85
    assert corrected.pooled.preferences.tolist() == pytest.approx([1, 1, 1], abs=0.06)
    assert corrected.bias["length"] > 0.5


# --- sittings ------------------------------------------------------------------------------------


def judge(spent: Spent, rates: Rates, grid: float | None = 100.0) -> Any:
    account = Account()
    account.asked(Verdict(0, spent=spent), 2)
    return account.cost(rates, intensity_g_per_kwh=grid)


NO_JUDGE = Account().cost(Rates(), intensity_g_per_kwh=None)


def test_the_cost_is_of_all_sittings_the_answers_and_the_judge() -> None:
    spent = Spent(calls=4, input_tokens=90, output_tokens=10)
    one = sittings.sitting(
        Tally(requests=7, output_tokens=30, energy_joules=3.0, carbon_g=0.25, repeated=1),
        judge(spent, Rates(joules_per_token=0.5)),
    )
    two = sittings.sitting(Tally(requests=1, energy_joules=1.0, carbon_g=0.5), NO_JUDGE)
    json.dumps([one, two])  # as the journal has them
    total = sittings.cost([one, two], left_out=2)
    assert (total.requests, total.output_tokens, total.judge_calls, total.left_out) == (8, 30, 4, 2)
    assert (total.energy_joules, total.carbon_g, total.judge_joules) == (4, 0.75, 50)
    assert not any((total.energy_estimated, total.carbon_unknown, total.judge_joules_unknown))


@pytest.mark.parametrize(
    ("tally", "cost", "unknown"),
    [
        (Tally(requests=1, carbon_unknown=1), NO_JUDGE, (True, False)),
        (Tally(requests=1, failed=1), NO_JUDGE, (True, False)),
        (Tally(), judge(Spent(calls=1, input_tokens=9), Rates()), (False, True)),
        (Tally(), judge(Spent(calls=1, uncounted_calls=1), Rates(1.0)), (False, True)),
        (Tally(), judge(Spent(calls=1, input_tokens=9), Rates(1.0), grid=None), (True, False)),
    ],
)
def test_what_is_not_known_is_no_zero(tally: Tally, cost: Any, unknown: tuple[bool, bool]) -> None:
    known = sittings.sitting(Tally(requests=3, carbon_g=1.0), NO_JUDGE)
    for order in ((known, sittings.sitting(tally, cost)), (sittings.sitting(tally, cost), known)):
        total = sittings.cost(order)
        assert (total.carbon_unknown, total.judge_joules_unknown) == unknown


def test_what_q_does_not_show_is_said() -> None:
    one = sittings.sitting(Tally(repeated=2, failed=1, unmetered=3, held=4, held_s=1.5), NO_JUDGE)
    said = " | ".join(sittings.notes([one, one], {"a": "EngineError", "b": "PromptTooLong"}))
    for part in ("2 prompts were left out", "EngineError 1", "4 requests were tried again"):
        assert part in said
    for part in ("2 requests ended without a receipt", "6 answers came without joules"):
        assert part in said
    assert "8 requests waited for clients, 3 s in all" in said
    assert list(sittings.notes([sittings.sitting(Tally(requests=9), NO_JUDGE)], {})) == []


# --- horizon -------------------------------------------------------------------------------------


def policy(**given: object) -> pb.Policy:
    made = pb.Policy(pue=1.0, intensity=pb.Intensity(g_per_kwh=100))
    made.explanation.k0_min_g_per_kwh, made.explanation.k0_max_g_per_kwh = 100, 500
    made.explanation.xi, made.explanation.fraction = 0.1, 0.0
    for level, joules in zip(Config().control.prior_energy_joules, (10, 5, 2), strict=True):
        made.explanation.profile.add(energy_joules=joules, level=f"{level}")
    return made


def test_the_hours_span_the_range_of_intensities() -> None:
    found = horizon.hours(policy())
    assert [hour.floor for hour in found] == pytest.approx([1, 0.975, 0.95, 0.925, 0.9])
    assert found[-1].costs_g[0] == pytest.approx(5 * found[0].costs_g[0])


def test_without_a_range_the_present_hour_is_all() -> None:
    made = policy()
    made.explanation.k0_min_g_per_kwh = made.explanation.k0_max_g_per_kwh = math.nan
    made.explanation.fraction = 0.5
    (hour,) = horizon.hours(made)
    assert hour.floor == pytest.approx(0.95)


def test_without_an_intensity_there_is_nothing_to_decide() -> None:
    made = policy()
    made.ClearField("intensity")
    assert horizon.hours(made) == []
