# SPDX-License-Identifier: Apache-2.0
"""What an evaluation sends to Triton, whose fault an error is, and what it is configured by."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from answering_engine import LEVELS, Idle, questions
from tritonclient.utils import InferenceServerException

from sprout.config import Config, load
from sprout.control import inbox
from sprout.control.guard import tallies
from sprout.directives import pack
from sprout.errors import (
    ConfigError,
    EngineError,
    EngineUnavailable,
    RequestError,
)
from sprout.evaluate.answering import Answering, answering
from sprout.evaluate.asking import TritonAsker
from sprout.evaluate.traffic import Gate
from sprout.request import hints
from sprout.serve import client
from sprout.v1 import control_pb2 as pb


def test_as_configured(tmp_path: Path) -> None:
    flags = {"stack.state_dir": str(tmp_path / "state"), "stack.name": "x"}
    cfg = load(environ={}, flags=flags)
    _, asker = answering(cfg, "127.0.0.1:1", LEVELS, energy_estimated=True)
    assert isinstance(asker, TritonAsker)
    # The stack's Triton has not started: no token, and that is said before anything is sent.
    with pytest.raises(ConfigError, match=r"evaluate\.schedule\.token_file.*evaluate\.token"):
        asker.ask(questions(1)[0], "L1", 4, lambda _: None)
    asker.close()
    elsewhere = load(environ={}, flags=flags | {"evaluate.schedule.endpoint": "other:8001"})
    with pytest.raises(ConfigError, match="endpoint"):
        answering(elsewhere, "127.0.0.1:1", LEVELS, energy_estimated=True)
    answering(elsewhere, "127.0.0.1:1", LEVELS, energy_estimated=True, traffic=Idle())


def test_what_is_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: dict[str, Any] = {}

    class Fake:
        def __init__(self, address: str) -> None:
            sent["address"] = address

        def ask(self, text: str, **given: Any) -> client.Answer:
            sent.update(given, text=text)
            return client.Answer()

        def close(self) -> None:
            sent["closed"] = True

    monkeypatch.setattr(client, "Client", Fake)
    token = tmp_path / "token"
    token.write_text("first\n")
    asker = TritonAsker("host:1", token_file=token, timeout_s=9)
    asker.ask(questions(1)[0], "L2", 33, lambda _: None)
    assert sent["address"] == "host:1"
    assert sent["marks"] == {"sprout_evaluate": "first", "sprout_sample": False}
    assert (sent["text"], sent["level"], sent["task"]) == ("What is 0?", "L2", "maths")
    assert (sent["max_tokens"], sent["timeout_s"]) == (33, 9)
    token.write_text("of the next start")
    asker.ask(questions(1)[0], "L2", 33, lambda _: None)
    assert sent["marks"]["sprout_evaluate"] == "of the next start"
    asker.close()
    assert sent["closed"]
    TritonAsker("host:1", token_file=None, timeout_s=9).ask(questions(1)[0], "L2", 3, print)
    assert sent["marks"] == {"sprout_sample": False}  # a prompt of an evaluation is none for one


def test_an_empty_token_is_none(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("\n")
    asker = TritonAsker("127.0.0.1:1", token_file=token, timeout_s=9)
    with pytest.raises(ConfigError, match="is empty"):
        asker.ask(questions(1)[0], "L1", 4, print)
    asker.close()


def test_a_token_that_the_server_refuses_ends_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own words, as its client gets them."""
    with pytest.raises(RequestError) as refused:
        hints.read('{"sprout_evaluate": "old"}', pack("explicit"), frozenset(), None, "new")
    asked: list[str] = []

    class Fake(client.Client):
        def __init__(self, address: str) -> None: ...

        def ask(self, text: str, **_: Any) -> client.Answer:
            asked.append(text)
            message = f"in ensemble 'ensemble', {refused.value}"
            status = "StatusCode.INVALID_ARGUMENT"
            raise client._translated(InferenceServerException(message, status=status), "host:1")

        def close(self) -> None: ...

    monkeypatch.setattr(client, "Client", Fake)
    (tmp_path / "token").write_text("old")
    asker = TritonAsker("host:1", token_file=tmp_path / "token", timeout_s=9)
    settings = {"concurrency": 1, "max_tokens": 9, "retries": 2, "energy_estimated": False}
    made = Answering(asker, Gate(Idle(), 1, hold_s=9), LEVELS, **settings)
    with pytest.raises(ConfigError, match=r"host:1 does not know the token.*start Triton again"):
        list(made.answers(questions(3)))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("INVALID_ARGUMENT", "in ensemble 'ensemble', at most 2048 tokens", RequestError),
        ("UNAVAILABLE", "in ensemble 'ensemble', the engine is full", EngineError),
        ("UNAVAILABLE", "Socket closed", EngineUnavailable),
        ("INTERNAL", "in ensemble 'ensemble', the engine is gone", EngineError),
        (None, "the engine is gone", EngineError),
    ],
)
def test_whose_fault_an_error_of_triton_is(
    status: str | None, message: str, kind: type[Exception]
) -> None:
    given = None if status is None else f"StatusCode.{status}"
    assert type(client._translated(InferenceServerException(message, given), "host:1")) is kind


def test_errors_of_a_stream_come_with_their_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the header Triton gives text alone, and whose fault it is can't be told."""
    seen: list[Any] = []

    class Triton:
        def __init__(self, address: str) -> None: ...

        def start_stream(self, callback: Any, headers: Any = None) -> None:
            seen.append(headers)
            callback(
                result=None, error=InferenceServerException("no", "StatusCode.INVALID_ARGUMENT")
            )

        def async_stream_infer(self, *_: Any, **__: Any) -> None: ...
        def stop_stream(self, *, cancel_requests: bool) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr(client.triton, "InferenceServerClient", Triton)
    with client.Client("host:1") as asking, pytest.raises(RequestError, match="no"):
        asking.ask("hello")
    assert seen == [{"triton_grpc_error": "true"}]


def test_a_home_in_a_setting_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    cfg = load(environ={}, flags={"evaluate.schedule.token_file": "~/token"})
    assert cfg.evaluate.schedule.token_file == tmp_path / "token"
    (tmp_path / "token").write_text("x")
    cfg = load(
        environ={},
        flags={
            "evaluate.schedule.token_file": "~/token",
            "evaluate.schedule.endpoint": "127.0.0.1:1",
            "evaluate.schedule.nodes": "gpu-1,gpu-2",
        },
    )
    assert cfg.evaluate.schedule.nodes == ("gpu-1", "gpu-2")
    _, asker = answering(cfg, "", LEVELS, energy_estimated=True, traffic=Idle())
    with pytest.raises(EngineUnavailable):  # the token was read
        asker.ask(questions(1)[0], "L1", 4, lambda _: None)
    asker.close()


def test_a_rule_that_could_never_give_a_q_is_refused() -> None:
    with pytest.raises(ConfigError, match="prompts 20 is under least_prompts 50"):
        load(
            environ={},
            flags={"evaluate.schedule.rule": "fixed", "evaluate.schedule.prompts": 20},
        )


def test_defaults() -> None:
    schedule = Config().evaluate.schedule
    assert (schedule.rule, schedule.max_client_requests, schedule.concurrency) == ("off", 1, 1)


@pytest.mark.parametrize("beside", [{}, {"pinned": True}, {"control": True}, {"paused": True}])
def test_the_outcome_of_an_evaluation_counts_for_no_client(beside: dict[str, bool]) -> None:
    outcome = pb.Outcome(segment_uid=1, ticket=1, level=1, ending=pb.ENDING_DELIVERED)
    assert inbox.row("n", outcome).eligible
    evaluation = pb.Outcome(evaluation=True, **beside)
    evaluation.MergeFrom(outcome)
    row = inbox.row("n", evaluation)
    assert (row.arm, row.eligible) == ("evaluation", False)


def test_the_guard_does_not_look_at_evaluations() -> None:
    known: Any = {7: SimpleNamespace(standing="policy", prompt_share=0.0)}
    requests = Counter({(7, "control", 0): 50, (7, "L1", 1): 50})
    cut = Counter({(7, "L1", 1): 2})
    before = tallies(requests, cut, Counter(), known)
    requests[7, "evaluation", 1] = requests[7, "evaluation", 0] = 1000
    cut[7, "evaluation", 1] = 1000
    said = Counter({(7, "evaluation", 1, "thumbs_down"): 9})
    assert tallies(requests, cut, said, known) == before
