# SPDX-License-Identifier: Apache-2.0
"""What an evaluation may say, and what the control plane makes of it, over real gRPC."""

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from control_plane import WAIT_S, code_of, configure, first, running, stub_of
from some_evaluation import PACK, evaluation

from sprout.config import TenantConfig
from sprout.console.operator import why
from sprout.console.status import evaluation as sentence
from sprout.control import history, operators, quality
from sprout.control.store import Store
from sprout.errors import ControlError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

Stub = control_pb2_grpc.ControlStub
CODE = {"code": ((0.5, 0.3, 0.2), 150)}


def report(stub: Stub, made: pb.Evaluation) -> pb.Policy:
    request = pb.ReportEvaluationRequest(evaluation=made, actor="evaluator")
    return stub.ReportEvaluation(request, timeout=WAIT_S).policy


def status(stub: Stub) -> pb.Status:
    return stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S)


def mix(shares: Any) -> list[float]:
    return [share.share for share in shares]


def decision(stub: Stub, policy: pb.Policy) -> pb.Decision:
    request = pb.ListDecisionsRequest(version=version(policy))
    (found,) = stub.ListDecisions(request, timeout=WAIT_S).decisions
    return found


# --- what it may say -----------------------------------------------------------------------------


def changed(change: Callable[[pb.Evaluation], object]) -> pb.Evaluation:
    made = evaluation(classes=CODE)
    change(made)
    return made


def swap(made: pb.Evaluation) -> None:
    made.started_at.CopyFrom(made.finished_at)
    made.started_at.seconds += 1


def late(made: pb.Evaluation) -> None:
    made.finished_at.seconds += 3600


def lopsided(made: pb.Evaluation) -> None:
    made.classes[0].covariance[1] += 1e-4


def negative(made: pb.Evaluation) -> None:
    made.classes[0].covariance[0] = -1e-4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda e: setattr(e, "id", ""), "id must be 1 to 64"),
        (lambda e: setattr(e, "id", "a\nb"), "id must be 1 to 64"),
        (lambda e: setattr(e, "judge", "j" * 65), "judge must be 1 to 64"),
        (lambda e: setattr(e, "method", "guess"), "method must be one of"),
        (lambda e: setattr(e, "stopped", "s" * 501), "stopped is longer than 500"),
        (lambda e: e.levels.pop(), "levels are L0, L1, L2, not L0, L1"),
        (lambda e: setattr(e, "pack_hash", 7), "is not the one in force"),
        (lambda e: e.ClearField("started_at"), "must be set, and in this order"),
        (swap, "must be set, and in this order"),
        (late, "whose clock is wrong"),
        (lambda e: setattr(e.classes[1], "task", ""), "names one twice"),
        (lambda e: setattr(e.classes[0], "task", "chat"), 'lacks "", all requests'),
        (lambda e: setattr(e.classes[1], "task", "ü"), "class 'ü': a task is printable ASCII"),
        (lambda e: setattr(e.classes[1], "task", "c" * 24), "a task is printable ASCII"),
        (lambda e: setattr(e.classes[0], "judged", 0), "class '': judged must be"),
        (lambda e: e.classes[0].preference.pop(), "2 preferences for 3 levels"),
        (lambda e: e.classes[0].preference.__setitem__(1, math.nan), "preference must be in"),
        (lambda e: e.classes[0].preference.__setitem__(1, 2.1), "preference must be in 0 to 2"),
        (lambda e: e.classes[0].preference.__setitem__(0, 0.0), "L0 has no preference"),
        (lambda e: e.classes[0].covariance.pop(), "8 covariances for 3 levels"),
        (lambda e: e.classes[1].ClearField("covariance"), "some have none"),
        (lopsided, "finite and symmetric"),
        (negative, "negative eigenvalue"),
        (lambda e: e.classes[0].covariance.__setitem__(0, math.inf), "finite and symmetric"),
        (lambda e: e.classes[0].low.extend([1, 0.5]), "low must be 3 finite"),
        (lambda e: e.classes[0].high.extend([1, 1, 1]), "are no intervals"),
        (lambda e: setattr(e.classes[1], "shrunk", 1.1), "shrunk must be in 0 to 1"),
        (lambda e: setattr(e.classes[1], "weight_share", 1.1), "weight_share must be in 0 to 1"),
        (lambda e: setattr(e.classes[1], "weight_share", math.nan), "weight_share must be in 0"),
        (lambda e: setattr(e.cost, "judge_g", -1.0), "cost.judge_g must be finite"),
        (lambda e: e.bias.update({"position": math.nan}), "must be finite"),
        (lambda e: e.bias.update({f"b{i}": 0.0 for i in range(17)}), "17 measures of bias"),
        (lambda e: [e.classes.add(task=f"c{i}") for i in range(64)], "65 classes, at most 64"),
        (lambda e: setattr(e, "trigger", "t" * (257 << 10)), "bytes, at most"),
    ],
)
def test_what_is_impossible_is_refused(
    change: Callable[[pb.Evaluation], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        quality.checked(changed(change), PACK, time.time())


def test_what_is_possible_passes() -> None:
    quality.checked(evaluation(classes=CODE), PACK, time.time())
    quality.checked(evaluation(covariance=False), PACK, time.time())
    # Pairwise: L0 is what the others are compared with, so it has no variance.
    pairwise = evaluation(q=(0.5, 0.3, 0.2))
    pairwise.method = "pairwise"
    pairwise.classes[0].preference[:] = (1.0, 1.1, 0.7)
    pairwise.classes[0].covariance[:] = (0, 0, 0, 0, 4e-4, 1e-4, 0, 1e-4, 4e-4)
    quality.checked(pairwise, PACK, time.time())
    # Won every time, by weights that add up to a little more than 1.
    pairwise.classes[0].preference[1] = 2 * (1 + 4e-16)
    pairwise.classes[0].weight_share = 1 + 4e-16
    quality.checked(pairwise, PACK, time.time())
    found = quality.quality(pairwise).classes[""]
    assert (found.preference, found.weight_share) == ((1.0, 2.0, 0.7), 1.0)


# --- what comes of it ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stub]:
    with running(configure(tmp_path_factory.mktemp("state"))) as address, stub_of(address) as stub:
        first(stub)
        yield stub


def test_a_refused_one_changes_nothing(shared: Stub) -> None:
    before = version(first(shared))
    with pytest.raises(grpc.RpcError, match="method must be one of") as error:
        report(shared, changed(lambda e: setattr(e, "method", "guess")))
    assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT
    assert version(first(shared)) == before
    assert not status(shared).evaluation.HasField("latest")


def test_q_rests_on_it_at_once_and_after_a_restart(tmp_path: Path) -> None:
    config = configure(tmp_path, xi=0.1)
    with running(config) as address, stub_of(address) as stub:
        prior = first(stub)
        made = evaluation(q=(0.40, 0.38, 0.22))
        policy = report(stub, made)
        told = policy.explanation
        assert told.trigger == "evaluation"
        assert told.evaluation == "e1"
        assert mix(policy.shares) != mix(prior.shares)
        assert told.preference_basis.startswith("evaluated by exact on 400 prompts, 20")
        l1 = told.profile[1]
        assert l1.preference == 0.38
        assert l1.preference_se == pytest.approx(math.sqrt(0.38 * 0.62 / 400))
        z = told.confidence.z
        assert (told.confidence.wanted, z) == (0.9, told.confidence.z_wanted)
        assert 1.29 < z < 1.72  # L1 and L2 to choose from, and they win at each other's expense
        assert any(f"90 % confidence (z {z:.3g})" in line for line in why(policy))
        assert "relative to L0: L0 1.000  L1 0.950  L2 0.550" in sentence(status(stub).evaluation)
        # The same decision from its stored inputs.
        again, same = history.solve_again(decision(stub, policy))
        assert same
        assert again.confidence is not None
        entry = stub.ListAudit(pb.ListAuditRequest(page_size=1), timeout=WAIT_S).entries[0]
        assert (entry.action, entry.claimed) == ("evaluation", "evaluator")
        assert json.loads(entry.after_json)["preference"]["L1"] == 0.38
        # Again is no error and no news; something else under its name is one.
        assert version(report(stub, made)) == version(policy)
        stamped = evaluation(q=(0.40, 0.38, 0.22), age_s=1)
        assert version(report(stub, stamped)) == version(policy)
        stamped.trigger = "for another reason"
        stamped.stopped = "every prompt judged, again"
        assert version(report(stub, stamped)) == version(policy)
        assert status(stub).evaluation.latest == made
        with pytest.raises(grpc.RpcError, match="another evaluation has the id") as error:
            report(stub, evaluation(q=(0.5, 0.3, 0.2)))
        assert code_of(error) is grpc.StatusCode.ALREADY_EXISTS
    with running(config) as address, stub_of(address) as stub:
        restarted = first(stub)
        assert restarted.explanation.evaluation == "e1"
        assert mix(restarted.shares) == pytest.approx(mix(policy.shares))
        assert status(stub).evaluation.latest == made


def test_what_was_judged_by_prompt_is_kept_and_shown_to_nobody(tmp_path: Path) -> None:
    made = by_prompt(evaluation())
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        report(stub, made)
        shown = status(stub).evaluation.latest
        listed = stub.ListEvaluations(pb.ListEvaluationsRequest(), timeout=WAIT_S).evaluations
        assert [len(shown.by_prompt), *(len(each.by_prompt) for each in listed)] == [0, 0]
        assert shown.id == listed[0].id == made.id
        report(stub, made)  # the same, for what is stored
    store = Store(next(tmp_path.rglob("*.sqlite")))
    kept = pb.Evaluation.FromString(store.evaluations(1)[0])
    store.close()
    assert kept.by_prompt == made.by_prompt
    found = quality.quality(kept).judgments
    assert found is not None
    assert (found.weights, found.task) == ("a" * 64, ("", "code"))
    assert found.stands_for.tolist() == [1.5, 2.0]
    assert found.preferences.tolist() == [[0.5, 0.25, 0.25], [1.0, 0.0, 0.5]]
    assert found.joules.tolist() == [[60.0, 20.0, 12.0], [1.0, 2.0, 3.0]]
    assert found.scores.tolist() == [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    assert quality.quality(evaluation()).judgments is None


def by_prompt(made: pb.Evaluation, **changes: Any) -> pb.Evaluation:
    """With two judged prompts, the second of them changed."""
    made.weights = "a" * 64
    made.by_prompt.add(
        weight=1.5, predicted=[0.5, 0.25, 0.25, 60.0, 20.0, 12.0], scores=[1.0, 0.0, 0.0]
    )
    second = {"weight": 2.0, "predicted": [1, 0, 0.5, 1, 2, 3], "scores": [0, 1, 0], "task": "code"}
    made.by_prompt.add(**second | changes)
    return made


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"predicted": [1.0] * 5}, "5 predictions and 3 scores for 3 levels"),
        ({"scores": [1.0] * 2}, "6 predictions and 2 scores for 3 levels"),
        ({"predicted": [1.0] * 5 + [math.nan]}, "all finite"),
        ({"predicted": [1.0] * 5 + [-1.0]}, "all finite"),
        ({"weight": 0.0}, "a weight is above 0"),
        ({"weight": math.inf}, "a weight is above 0"),
        ({"scores": [0.0, 2.5, 0.0]}, "scores are in 0 to 2"),
        ({"scores": [0.0, math.nan, 0.0]}, "scores are in 0 to 2"),
        ({"task": "x" * 24}, "a task is printable ASCII"),
    ],
)
def test_what_was_judged_by_prompt_is_checked(changes: dict[str, Any], problem: str) -> None:
    quality.checked(by_prompt(evaluation()), PACK, time.time())
    with pytest.raises(ValueError, match=rf"by_prompt\[1\].*{problem}"):
        quality.checked(by_prompt(evaluation(), **changes), PACK, time.time())


def test_judged_prompts_are_of_named_weights_and_not_too_many() -> None:
    wrong = by_prompt(evaluation())
    wrong.weights = "A" * 64
    with pytest.raises(ValueError, match="weights is no SHA-256"):
        quality.checked(wrong, PACK, time.time())
    many = by_prompt(evaluation())
    many.by_prompt.extend([many.by_prompt[0]] * 999)
    with pytest.raises(ValueError, match="1001 judged prompts, at most 1000"):
        quality.checked(many, PACK, time.time())
    del many.by_prompt[-1]
    quality.checked(many, PACK, time.time())  # within the bytes of a message


def test_the_newest_counts_whatever_comes_when(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        report(stub, evaluation("new", age_s=60))
        late_one = report(stub, evaluation("old", q=(0.5, 0.3, 0.2), age_s=7200))
        assert late_one.explanation.evaluation == "new"
        listed = stub.ListEvaluations(pb.ListEvaluationsRequest(page_size=1), timeout=WAIT_S)
        assert [e.id for e in listed.evaluations] == ["new"]
        rest = stub.ListEvaluations(
            pb.ListEvaluationsRequest(before_id=listed.next_before_id), timeout=WAIT_S
        )
        assert [e.id for e in rest.evaluations] == ["old"]
        assert rest.next_before_id == ""
        with pytest.raises(grpc.RpcError, match="there is no evaluation") as error:
            stub.ListEvaluations(pb.ListEvaluationsRequest(before_id="x"), timeout=WAIT_S)
        assert code_of(error) is grpc.StatusCode.INVALID_ARGUMENT


def test_without_a_covariance_the_floor_is_the_plain_one(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        first(stub)
        plain = report(stub, evaluation(covariance=False))
        assert not plain.explanation.HasField("confidence")
        assert not plain.explanation.profile[1].HasField("preference_se")
        sure = report(stub, evaluation("e2", age_s=30))
        assert mix(sure.shares)[0] > mix(plain.shares)[0]


def outcomes(policy: pb.Policy, first_ticket: int, count: int, **fields: Any) -> list[pb.Outcome]:
    made = {
        **{"segment_uid": 3, "policy_version": version(policy), "ending": pb.ENDING_DELIVERED},
        **{"energy_joules": 10.0, "device_seconds": 1.0, "output_tokens": 50, **fields},
    }
    return [pb.Outcome(ticket=first_ticket + i, **made) for i in range(count)]


def test_classes_and_tenants_get_mixes_of_their_own(tmp_path: Path) -> None:
    tenants = {"acme": TenantConfig(minimum=0.98), "quiet": TenantConfig(opt_out=True)}
    config = configure(tmp_path, tenants=tenants, min_outcomes=10, xi=0.1, control_share=0.0)
    with running(config) as address, stub_of(address) as stub:
        policy = first(stub)
        rows = [
            *outcomes(policy, 1, 40, task="code", level=0, energy_joules=40.0),
            *outcomes(policy, 100, 40, task="code", level=1),
            *outcomes(policy, 200, 20, tenant="acme", task="code"),
            *outcomes(policy, 300, 20, tenant="quiet"),
            *outcomes(policy, 400, 40, task="chat"),
        ]
        request = pb.ReportOutcomesRequest(node="n", outcomes=rows)
        stub.ReportOutcomes(request, timeout=WAIT_S)
        made = report(stub, evaluation(judged=4000, classes={"code": ((0.5, 0.3, 0.2), 1500)}))
        mixes = {(m.tenant, m.task): m for m in made.mixes}
        assert set(mixes) == {("acme", ""), ("quiet", ""), ("", "code")}
        assert mix(mixes["quiet", ""].shares) == [1, 0, 0]
        assert mixes["quiet", ""].basis == "tenant opted out"
        assert mixes["acme", ""].expected_preference >= 0.98 - 1e-9
        code = mixes["", "code"]
        assert (code.basis, code.traffic_share) == ("class", 0.5)
        assert [p.energy_basis for p in code.profile[:2]] == ["measured", "measured"]
        assert code.profile[2].energy_basis == "that of all classes, scaled to the measured levels"
        assert code.profile[0].preference == 0.5
        assert sum(m.traffic_share for m in made.mixes) == pytest.approx(0.75, abs=2e-3)
        _, same = history.solve_again(decision(stub, made))
        assert same
        # A pin is everybody's but theirs who were promised something; the kill switch is for all.
        pin = pb.PinRequest(shares=[pb.LevelShare(level="L2", share=1)], reason="drill")
        pinned = stub.Pin(pin, timeout=WAIT_S)
        kept = {m.tenant: m for m in pinned.mixes}
        assert mix(pinned.shares) == [0, 0, 1]
        assert set(kept) == {"acme", "quiet"}
        assert mix(kept["quiet"].shares) == [1, 0, 0]
        assert kept["acme"].expected_preference == pytest.approx(0.98)
        paused = stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        assert mix(paused.shares) == [1, 0, 0]
        assert [(m.tenant, mix(m.shares)) for m in paused.mixes] == [("quiet", [1, 0, 0])]


def test_a_class_gets_its_mix_as_soon_as_it_is_measured(tmp_path: Path) -> None:
    with running(configure(tmp_path, min_outcomes=10)) as address, stub_of(address) as stub:
        first(stub)
        policy = report(stub, evaluation(judged=4000, classes={"code": ((0.5, 0.3, 0.2), 1500)}))
        assert not policy.mixes
        stream = stub.WatchPolicy(pb.WatchPolicyRequest(node="t"), timeout=WAIT_S)
        rows = outcomes(policy, 1, 10, task="code")
        stub.ReportOutcomes(pb.ReportOutcomesRequest(node="n", outcomes=rows), timeout=WAIT_S)
        found = next(each for each in stream if each.mixes)
        stream.cancel()
        assert [m.task for m in found.mixes] == ["code"]
        assert found.explanation.trigger == "mixes"


def test_pruning_leaves_what_q_rests_on(tmp_path: Path) -> None:
    store = Store(tmp_path / "c.sqlite")
    old = time.time() - 1e6
    for number in range(3):
        store.add_evaluation(evaluation(f"e{number}", age_s=2e6 - number), old)
    store.prune(time.time(), 100)
    (kept,) = store.evaluations(10)
    assert pb.Evaluation.FromString(kept).id == "e2"
    store.close()


def test_a_page_fits_into_a_message() -> None:
    assert operators._fitting([1 << 20] * 10) == 3
    assert operators._fitting([1 << 30, 1]) == 1
    assert operators._fitting([]) == 0


def test_a_store_that_fails_leaves_q_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        before = version(first(stub))

        def full(*_: object) -> None:
            raise ControlError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "add_evaluation", full)
            with pytest.raises(grpc.RpcError, match="the store failed") as error:
                report(stub, evaluation())
        assert code_of(error) is grpc.StatusCode.UNAVAILABLE
        assert version(first(stub)) == before
        assert report(stub, evaluation()).explanation.evaluation == "e1"
