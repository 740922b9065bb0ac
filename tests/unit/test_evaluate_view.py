# SPDX-License-Identifier: Apache-2.0
"""What `sprout evaluate report` says of evaluations that tests make."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sprout.config import Config
from sprout.console import evaluate, evaluate_plots, evaluate_view, operator
from sprout.errors import ControlError
from sprout.evaluate.journal import Entry, Journal, Key
from sprout.proof.interval import Absent, Interval
from sprout.v1 import control_pb2 as pb

KEY = Key("00", "v1", "pairwise", "file", ("L0", "L1", "L2"), "greedy")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    text = io.StringIO()
    monkeypatch.setattr(
        evaluate_view, "out", Console(file=text, highlight=False, soft_wrap=True, width=200)
    )
    return text


def found(**given: Any) -> dict[str, Any]:
    made = {
        "id": "e1",
        "levels": ["L0", "L1", "L2"],
        "judge": "test judge",
        "method": "pairwise",
        "prompts": "sampled",
        "stopped": "every prompt was judged",
        "classes": [
            {
                "task": "",
                "judged": "40",
                "preference": [1.0, 0.9, 0.6],
                "low": [1.0, 0.7, 0.4],
                "high": [1.0, 1.1, 1e6],
            },
            {"task": "chat", "judged": "9", "preference": [1.0, 0.8, 0.5], "shrunk": 0.4},
        ],
        "cost": {
            "requests": "120",
            "output_tokens": "4000",
            "energy_joules": 300.0,
            "energy_estimated": True,
            "carbon_g": 0.02,
            "judge_calls": "160",
            "judge_price": 0.5,
        },
        "bias": {"position": 0.12, "consistent": 0.9, "length": 0.3},
        "unusable": "3",
        "notes": ["a note"],
    }
    return made | given


def journal(*entries: Entry) -> Journal:
    return Journal(Path("x"), "e1", KEY, 0.0, list(entries), evaluation=found())


def pair(number: int, *verdicts: tuple[float, float]) -> Entry:
    scores = (1.0, *(a + b for a, b in verdicts))
    return Entry(f"q{number}", "", 1.0, scores=scores, orders=verdicts)


def test_q_with_intervals_cost_and_bias(said: io.StringIO) -> None:
    evaluate_view.show(found())
    text = said.getvalue()
    for part in (
        *("90.0 (70 to 110)", "60.0 (40 to ∞)", "80.0", "40 %", "300 J (estimated)"),
        *("20 mg", "joules not known", "0.50 in your currency", "+12.0 points", "a note"),
        *("3 judgments could not be used", "every prompt was judged"),
    ):
        assert part in text, part


def test_what_is_not_known_is_no_zero(said: io.StringIO) -> None:
    cost = found()["cost"] | {
        "carbon_unknown": True,
        "judge_joules": 5.0,
        "judge_joules_unknown": True,
        "left_out": "4",
    }
    evaluate_view.show(found(cost=cost))
    text = said.getvalue()
    assert "at least 20 mg" in text
    assert "of some calls not known" in text
    assert "4 prompts that the engine did not answer" in text


def test_reasons_of_what_was_unusable(said: io.StringIO) -> None:
    entry = Entry("q", "", 1.0, unusable=((1, "malformed"), (2, "malformed"), (1, "timeout")))
    evaluate_view.unusable(journal(entry))
    assert "malformed 2, timeout 1" in said.getvalue()


def test_the_share_of_what_was_saved(said: io.StringIO) -> None:
    saved = {
        "requests": 1000,
        "attributed_g": 50.0,
        "answers_g": 0.4,
        "judge_g": 0.1,
        "judge_known": True,
        "carbon_unknown": False,
    }
    evaluate_view.show_share(saved)
    assert "1 %" in said.getvalue()
    evaluate_view.show_share(saved | {"judge_known": False, "attributed_g": -1.0})
    assert "against nothing" in said.getvalue()
    assert "without judges" in said.getvalue()
    evaluate_view.show_share({"not_known": "[NL] and DE"})
    assert "not known: [NL] and DE" in said.getvalue()


@pytest.mark.parametrize(
    ("arms", "why"),
    [
        ({"control": {}}, "no request of the control group yet"),
        ({"control": {"NL trace": 2.0}}, "no request under the policy yet"),
        (
            {"control": {"NL trace": 2.0}, "L1": {"NL trace": 1.0, "DE trace": 1.0}},
            "grams of several carbon series don't add up (DE trace; NL trace): `sprout report` has "
            "what was saved in each",
        ),
    ],
)
def test_why_the_share_is_not_known(
    monkeypatch: pytest.MonkeyPatch, arms: dict[str, dict[str, float]], why: str
) -> None:
    totals = [
        pb.ArmTotals(
            arm=arm,
            outcomes=len(grams),
            carbon_g=sum(grams.values()),
            carbon_g_by_series=grams,
        )
        for arm, grams in arms.items()
    ]
    monkeypatch.setattr(operator, "status", lambda _: pb.Status(arms=totals))
    monkeypatch.setattr(operator, "evaluations", lambda _: [])
    assert evaluate.saved(Config()) == {"not_known": why}


@pytest.mark.parametrize("unmetered", [1, 2])
def test_the_share_is_of_what_was_metered_where_that_is_nearly_all(
    monkeypatch: pytest.MonkeyPatch, unmetered: int
) -> None:
    control = pb.ArmTotals(arm="control", outcomes=100, carbon_g=198.0, unmetered=unmetered)
    totals = [control, pb.ArmTotals(arm="L1", outcomes=100, carbon_g=100.0)]
    monkeypatch.setattr(operator, "status", lambda _: pb.Status(arms=totals))
    monkeypatch.setattr(operator, "evaluations", lambda _: [])
    found = evaluate.saved(Config())
    if unmetered > 1:
        assert found["not_known"].startswith("over 1 % of an arm were not metered")
    else:
        assert (found["requests"], found["attributed_g"]) == (100, pytest.approx(100.0))


def test_without_a_control_plane_the_share_is_not_known_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(_: Config) -> pb.Status:
        raise ControlError("control plane 127.0.0.1:1: is away")

    monkeypatch.setattr(operator, "status", away)
    assert evaluate.saved(Config()) == {"not_known": "control plane 127.0.0.1:1: is away"}


def test_the_worst_disagreements_are_shown_and_only_where_texts_are_kept(
    said: io.StringIO,
) -> None:
    worse = replace(
        pair(1, (0.0, 0.0), (1.0, 1.0)), prompt="why [bold]?", answers=("because", "dunno", "so")
    )
    evaluate_view.disagreements(journal(worse, replace(worse, id="q2", scores=(1.0, 1.0, 2.0))))
    text = said.getvalue()
    assert "why [bold]?" in text
    assert "L1: dunno" in text
    assert "q2" not in text
    evaluate_view.disagreements(journal(pair(1, (0.0, 0.0), (1.0, 1.0))))
    assert "no texts are kept" in said.getvalue()


def test_two_judges_who_agree_and_two_who_don_t() -> None:
    one = journal(*(pair(i, (i % 2, i % 2), (0.5, 0.5)) for i in range(40)))
    same = evaluate_view.agreement(one, one)
    assert isinstance(same, Interval)
    assert same.value == pytest.approx(1)
    other = journal(*(pair(i, (1 - i % 2, 1 - i % 2), (0.5, 0.5)) for i in range(40)))
    opposed = evaluate_view.agreement(one, other)
    assert isinstance(opposed, Interval)
    assert opposed.value < 0


def test_judges_of_two_methods_are_compared_by_level() -> None:
    pairs = [pair(i, (i % 2, i % 2), (1 - i % 2, 1 - i % 2)) for i in range(40)]
    marks = [Entry(p.id, "", 1.0, scores=(0.5, *(s / 2 for s in p.scores[1:]))) for p in pairs]
    found_ = evaluate_view.agreement(journal(*pairs), journal(*marks))
    assert isinstance(found_, Interval)
    assert found_.value == pytest.approx(1)


def test_nothing_in_common_is_said() -> None:
    one, other = journal(pair(1, (1.0, 1.0))), journal(pair(2, (1.0, 1.0)))
    assert isinstance(evaluate_view.agreement(one, other), Absent)


def test_a_bar_that_the_picture_cuts_says_where_it_ends() -> None:
    (axes,) = evaluate_plots.figure(found()).axes
    assert [text.get_text() for text in axes.texts] == ["∞"]  # of L2, up to 1e6
    one = found()["classes"][0] | {"preference": [1.0, 3.0, 2.9], "low": [1, 2.6, 2.7]}
    (axes,) = evaluate_plots.figure(found(classes=[one | {"high": [1.0, 3.1, 4.0]}])).axes
    assert [text.get_text() for text in axes.texts] == ["400 %"]
    bars = [line for line in axes.lines if line.get_linewidth() == evaluate_plots.BAR]
    for bar in bars:
        low, high = bar.get_xdata()
        assert low < high


@pytest.mark.parametrize("name", ["q.png", "q.svg"])
def test_the_picture_is_drawn(tmp_path: Path, name: str) -> None:
    evaluate_plots.draw(found(), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")
    if name.endswith("svg"):
        evaluate_plots.draw(found(), tmp_path / "again.svg")
        assert len((tmp_path / "again.svg").read_bytes()) == len(content)
