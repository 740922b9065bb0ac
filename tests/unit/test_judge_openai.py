# SPDX-License-Identifier: Apache-2.0
"""A judge behind a chat-completions API that does everything wrong, over a real socket."""

import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from judge_api import Api, Asked, better, given, question, said, serving
from loopback_api import Answer, answer

from sprout.carbon.secret import Secret
from sprout.errors import ConfigError, JudgeError, RequestCancelled
from sprout.evaluate.judges.exchange import MAX_ANSWER_BYTES
from sprout.evaluate.judges.instructions import Instructions
from sprout.evaluate.judges.model import GIVE_UP_AFTER, ModelJudge
from sprout.evaluate.judges.openai import OpenAILine
from sprout.evaluate.judges.pace import Pace
from sprout.evaluate.judges.verdict import Method, Reason, Verdict

MakeJudge = Callable[..., ModelJudge]
BROKEN = answer({}, 503)


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as server:
        yield server


@pytest.fixture
def make(api: Api) -> Iterator[MakeJudge]:
    made: list[ModelJudge] = []

    def judge(
        *, method: Method = "pairwise", retries: int = 2, pace: Pace | None = None, **line: Any
    ) -> ModelJudge:
        found = ModelJudge(
            OpenAILine(api.url, "judge", **({"timeout_s": 60.0} | line)),
            Instructions(method),
            retries=retries,
            pace=pace or Pace(retry_s=0),
        )
        made.append(found)
        return found

    yield judge
    for one in made:
        one.close()


def ask(judge: ModelJudge, stop: threading.Event | None = None) -> Verdict:
    return judge.prefer(question(), given("four", "4"), stop or threading.Event())


def test_what_is_sent(api: Api, make: MakeJudge, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret\n")
    api.script(better("B"))
    verdict = ask(make(key=Secret(key, "evaluate.judge.key_file")))
    assert verdict == Verdict(1, spent=verdict.spent)
    assert (verdict.spent.calls, verdict.spent.input_tokens) == (1, 100)
    assert verdict.spent.output_tokens == 7
    asked = api.asked[0]
    assert asked.path == "/v1/chat/completions"
    assert asked.headers["authorization"] == "Bearer sk-secret"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.body["model"] == "judge"
    assert asked.body["temperature"] == 0
    assert asked.body["max_tokens"] == 512
    schema = asked.body["response_format"]["json_schema"]["schema"]
    assert schema["properties"] == {"better": {"type": "string", "enum": ["A", "B", "tie"]}}
    assert asked.blocks == {"QUESTION": "What is 0 + 0?", "ANSWER A": "four", "ANSWER B": "4"}


def test_a_choice_names_as_many_letters_as_answers(api: Api, make: MakeJudge) -> None:
    api.script(said({"choice": "C"}))
    verdict = make(method="choice").prefer(question(), given("a", "b", "c"), threading.Event())
    assert verdict.place == 2
    schema = api.asked[0].body["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["choice"]["enum"] == ["A", "B", "C"]


UNREADABLE = {
    "not json": "A",
    "prose before": 'Answer A is better. {"better": "A"}',
    "prose after": '{"better": "A"} because it is right',
    "a fence": '```json\n{"better": "A"}\n```',
    "two objects": '{"better": "A"}\n{"better": "B"}',
    "a list": '[{"better": "A"}]',
    "a key twice": '{"better": "A", "better": "B"}',
    "another key": '{"winner": "A"}',
    "one key more": '{"better": "A", "why": "it is right"}',
    "a wrong letter": '{"better": "C"}',
    "a small letter": '{"better": "a"}',
    "no text": '{"better": 1}',
    "cut off": '{"better": "A',
    "deep": "[" * 900,
    "long": '{"better": "A"' + " " * 1000 + "}",
    "a refusal in words": "I'm sorry, but I can't compare these answers.",
    "nothing": "",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_what_is_no_verdict_is_asked_again_then_unusable(
    api: Api, make: MakeJudge, text: str
) -> None:
    api.script(said(text), better("A"))
    verdict = ask(make())
    assert (verdict.place, verdict.spent.calls, verdict.spent.output_tokens) == (0, 2, 14)
    assert "could not be read" not in api.asked[0].user
    assert "could not be read" in api.asked[1].user

    api.script(said(text))
    verdict = ask(make(retries=1))
    assert (verdict.place, verdict.unusable) == (None, Reason.MALFORMED)
    assert verdict.spent.calls == 2


REFUSAL = answer({"choices": [{"message": {"content": None, "refusal": "No."}}]})
FAILED = {
    "out of tokens": (said({"better": "A"}, finish="length"), Reason.TRUNCATED),
    "refusal": (REFUSAL, Reason.REFUSED),
    "filtered": (said({"better": "A"}, finish="content_filter"), Reason.REFUSED),
    "filtered before": (answer({"error": {"code": "content_filter"}}, 400), Reason.REFUSED),
    "no json at all": (Answer(b"<html>it works</html>"), Reason.MALFORMED),
    "json cut off": (Answer(b'{"choices": [{"mess'), Reason.MALFORMED),
    "deep json": (Answer(b"[" * 200_000), Reason.MALFORMED),
    "another shape": (answer({"choices": {"0": "A"}}), Reason.MALFORMED),
    "no choices": (answer({"choices": []}), Reason.MALFORMED),
    "no content": (said(None), Reason.MALFORMED),
    "huge": (Answer(b" " * (MAX_ANSWER_BYTES + 1)), Reason.OVERSIZED),
    "hung up": (Answer(b"{", declared=1000), Reason.UNAVAILABLE),
    "its own error": (BROKEN, Reason.UNAVAILABLE),
    "asked too often": (answer({}, 429, Retry_After="0"), Reason.RATE_LIMITED),
}


@pytest.mark.parametrize(("told", "reason"), FAILED.values(), ids=FAILED)
def test_what_fails_is_tried_again_then_unusable(
    api: Api, make: MakeJudge, told: Answer, reason: Reason
) -> None:
    api.script(told, better("A"))
    assert (verdict := ask(make())).place == 0
    assert verdict.spent.calls == 2
    api.script(told)
    assert ask(make(retries=1)).unusable is reason


@pytest.mark.parametrize("told", [Answer(deaf=True), Answer(declared=1 << 20, drip=True)])
def test_a_time_out_is_for_the_whole_exchange(api: Api, make: MakeJudge, told: Answer) -> None:
    """Bytes that drip more often than any time-out per read would trip included."""
    api.script(told)
    verdict = ask(make(retries=1, timeout_s=0.3))
    assert verdict.unusable is Reason.TIMEOUT
    assert (verdict.spent.calls, verdict.spent.uncounted_calls) == (2, 2)


def test_nobody_there(make: MakeJudge, api: Api) -> None:
    api.script(better("A"))
    with serving() as gone:
        url = gone.url
    with closing(
        ModelJudge(OpenAILine(url, "judge"), Instructions("pairwise"), retries=0)
    ) as judge:
        assert ask(judge).unusable is Reason.UNAVAILABLE


def test_an_outage_ends_the_evaluation_and_a_success_in_between_does_not(
    api: Api, make: MakeJudge
) -> None:
    judge = make(retries=0)
    api.script(*[BROKEN] * (GIVE_UP_AFTER - 1), better("A"), BROKEN)
    for _ in range(GIVE_UP_AFTER - 1):
        assert ask(judge).unusable is Reason.UNAVAILABLE
    assert ask(judge).place == 0
    for _ in range(GIVE_UP_AFTER - 1):
        assert ask(judge).unusable is Reason.UNAVAILABLE
    with pytest.raises(JudgeError, match=f"{GIVE_UP_AFTER} comparisons in a row"):
        ask(judge)


class Clock(threading.Event):
    """Time that passes by being waited for, alone."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.waits = 1000.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        self.waits.append(timeout)
        self.now += timeout
        return self.is_set()


def test_back_off_doubles_is_jittered_and_never_sooner_than_asked(
    api: Api, make: MakeJudge
) -> None:
    clock = Clock()
    pace = Pace(retry_s=1, monotonic=clock.monotonic, uniform=lambda low, high: high)
    judge = make(retries=4, pace=pace)
    limited = answer({}, 429, Retry_After="17")
    api.script(BROKEN, BROKEN, limited, said("no verdict"), better("B"))
    assert ask(judge, clock).place == 1
    assert clock.waits == [1.5, 3.0, 17.0]  # what could not be read is asked again at once


def test_a_retry_after_holds_for_everybody_and_is_bounded(api: Api, make: MakeJudge) -> None:
    clock = Clock()
    judge = make(retries=0, pace=Pace(monotonic=clock.monotonic))
    api.script(answer({}, 429, Retry_After="40"), better("A"))
    assert ask(judge, clock).unusable is Reason.RATE_LIMITED
    assert ask(judge, clock).place == 0
    assert clock.waits == [40.0]
    api.script(answer({}, 429, Retry_After="86400"))
    with pytest.raises(JudgeError, match="left alone for 86400 s"):
        ask(judge, clock)


def test_a_server_without_structured_answers_is_asked_in_words_alone(
    api: Api, make: MakeJudge
) -> None:
    def program(asked: Asked) -> Answer:
        if "response_format" in asked.body:
            return answer({"error": {"message": "extra field: response_format"}}, 422)
        return better("A")

    api.program = program
    judge = make()
    assert [ask(judge).place for _ in range(3)] == [0, 0, 0]
    assert ["response_format" in asked.body for asked in api.asked] == [True, False, False, False]
    assert '{"better": "A"} or {"better": "B"} or {"better": "tie"}' in api.asked[1].system


def test_a_model_that_takes_neither_temperature_nor_max_tokens(api: Api, make: MakeJudge) -> None:
    def program(asked: Asked) -> Answer:
        if "max_tokens" in asked.body:
            return answer({"error": {"message": "use 'max_completion_tokens' instead"}}, 400)
        if "temperature" in asked.body:
            return answer({"error": {"param": "temperature", "message": "unsupported"}}, 400)
        return better("B")

    api.program = program
    judge = make()
    assert ask(judge).place == 1
    assert len(api.asked) == 3
    assert ask(judge).place == 1
    last = api.asked[-1].body
    assert (len(api.asked), last["max_completion_tokens"]) == (4, 512)
    assert "response_format" in last


def test_a_prompt_that_is_refused_is_not_the_server_s_dialect(api: Api, make: MakeJudge) -> None:
    too_long = answer({"error": {"message": "context length of 8192 exceeded"}}, 400)
    api.script(better("A"), too_long, better("B"))
    judge = make()
    assert ask(judge).place == 0
    verdict = ask(judge)
    assert (verdict.unusable, verdict.spent.calls) == (Reason.REJECTED, 1)  # not tried again
    assert ask(judge).place == 1
    assert "response_format" in api.asked[-1].body


@pytest.mark.parametrize("status", [302, 401, 402, 403, 404, 413])
def test_what_no_retry_helps_ends_it_and_quotes_nothing(
    api: Api, make: MakeJudge, status: int, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("sk-secret")
    api.script(answer({"error": "sk-secret is wrong"}, status, Location=f"{api.url}/elsewhere"))
    with pytest.raises(JudgeError, match=f"HTTP {status}") as caught:
        ask(make(key=Secret(key, "evaluate.judge.key_file")))
    assert "sk-secret" not in str(caught.value)
    assert len(api.asked) == 1


def test_a_request_that_is_never_taken_ends_it(api: Api, make: MakeJudge) -> None:
    api.script(answer({"error": "no such model"}, 400))
    with pytest.raises(JudgeError, match=r"evaluate\.judge\.model"):
        ask(make())


@pytest.mark.parametrize("how", ["stop", "close"])
def test_a_call_in_flight_ends_when_it_is_told_to(api: Api, make: MakeJudge, how: str) -> None:
    api.script(Answer(deaf=True))
    judge, stop, ended = make(), threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            ask(judge, stop)
        except RequestCancelled as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert api.arrived.acquire(timeout=60)
    if how == "stop":
        stop.set()
    else:
        judge.close()
    thread.join(60)
    assert len(ended) == 1
    assert len(api.asked) == 1
    if how == "close":
        with pytest.raises(RequestCancelled):
            ask(judge)


def test_a_proxy_that_can_t_be_is_named_without_its_password(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "nonsense://user:secret@proxy")
    with pytest.raises(ConfigError, match="proxy") as caught:
        OpenAILine("https://judge.example/v1", "m")
    assert "secret" not in str(caught.value)
    OpenAILine("http://127.0.0.1:1/v1", "m").close()  # no proxy on loopback


def test_tokens_that_are_not_said_or_nonsense_are_not_known(api: Api, make: MakeJudge) -> None:
    choices = [{"message": {"content": '{"better": "A"}'}, "finish_reason": "stop"}]
    for usage in ({}, {"prompt_tokens": -1, "completion_tokens": 3}, None, {"prompt_tokens": True}):
        api.script(answer({"choices": choices, "usage": usage}))
        verdict = ask(make())
        assert (verdict.place, verdict.spent.uncounted_calls) == (0, 1)


def test_a_key_never_crosses_a_network_in_the_clear_unless_that_is_allowed(
    tmp_path: Path,
) -> None:
    path = tmp_path / "key"
    path.write_text("k")
    key = Secret(path, "evaluate.judge.key_file")
    with pytest.raises(ConfigError, match="allow_plain_http"):
        OpenAILine("http://judge.example/v1", "m", key=key)
    for url, extra in [
        ("https://judge.example/v1", {}),
        ("http://[::1]:9000/v1", {}),
        ("http://judge.example/v1", {"allow_plain_http": True}),
    ]:
        OpenAILine(url, "m", key=key, **extra).close()
    OpenAILine("http://judge.example/v1", "m").close()  # no key


@pytest.mark.parametrize("url", ["judge:9000", "ftp://judge/v1", "https://u:p@judge/v1", "http://"])
def test_a_url_is_a_host_and_a_path(url: str) -> None:
    with pytest.raises(ConfigError, match=r"evaluate\.judge\.url") as caught:
        OpenAILine(url, "m")
    assert "u:p" not in str(caught.value)


def test_the_version_follows_what_a_verdict_depends_on(api: Api) -> None:
    def version(model: str = "m", port: int = 1, **instructions: Any) -> str:
        line = OpenAILine(f"http://127.0.0.1:{port}/v1", model)
        with closing(ModelJudge(line, Instructions("pairwise", **instructions))) as judge:
            return judge.version

    versions = [
        version(),
        version("n"),
        version(length="none"),
        version(criteria="Judge the rhyme."),
        version(max_chars=999),
    ]
    assert len(set(versions)) == len(versions)
    assert version() == version(port=2)
