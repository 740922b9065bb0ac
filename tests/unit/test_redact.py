# SPDX-License-Identifier: Apache-2.0
"""The operator's redaction: a program of theirs, well behaved or not."""

import selectors
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sprout.agent.redact import Redactor
from sprout.errors import ConfigError
from sprout.serve.process import wait_gone

PROLOGUE = """
import json, os, sys, time
def answers():
    for line in sys.stdin:
        yield json.loads(line)["text"]
def say(text):
    print(json.dumps({"text": text}), flush=True)
"""
# Hides digits, keeps what is secret on the node, counts its own starts in a file beside it.
GOOD = """
open(sys.argv[1], "a").write("started\\n")
for text in answers():
    if text == "die":
        os._exit(3)
    say(None if "secret" in text else "".join("#" if c.isdigit() else c for c in text))
"""

Make = Callable[..., Redactor]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    made: list[Redactor] = []

    def make(body: str, **changes: object) -> Redactor:
        script = tmp_path / "redact.py"
        script.write_text(PROLOGUE + body)
        settings = {"longest": 100, "backoff_s": lambda _: 0.0, "timeout_s": 60.0} | changes
        command = (sys.executable, str(script), str(tmp_path / "starts"))
        made.append(Redactor(command, **settings))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for redactor in made:
        redactor.close()


def test_a_program_of_the_operators(make: Make, tmp_path: Path):
    redactor = make(GOOD)
    assert redactor.redact("call 0123") == "call ####"
    assert redactor.redact("a secret") is None
    assert redactor.redact("Grüße, \n\x00 7 \U0001f331") == "Grüße, \n\x00 # \U0001f331"
    assert redactor.redact("") == ""
    assert (redactor.withheld, redactor.failed) == (1, 0)
    assert (tmp_path / "starts").read_text() == "started\n"  # one process for all


def test_a_crash_costs_one_prompt(make: Make, tmp_path: Path):
    waits: list[int] = []
    redactor = make(GOOD, backoff_s=lambda attempt: float(waits.append(attempt) or 0))
    assert redactor.redact("one 1") == "one #"
    assert redactor.redact("die") is None
    assert redactor.redact("two 2") == "two #"
    assert redactor.redact("die") is None
    assert redactor.redact("die") is None
    assert redactor.redact("three") == "three"
    assert (redactor.withheld, redactor.failed) == (0, 3)
    assert (tmp_path / "starts").read_text().count("started") == 4
    assert waits == [0, 0, 1]  # an answer in between starts the back-off anew


@pytest.mark.parametrize(
    "body",
    [
        "for _ in answers(): print('no json', flush=True)",
        "for _ in answers(): print('[]', flush=True)",
        "for _ in answers(): print('{}', flush=True)",
        "for _ in answers(): say(7)",
        "for _ in answers(): say('x' * 101)",
        "for _ in answers(): sys.stdout.write('x' * 100_000); sys.stdout.flush()",
        'for _ in answers(): os.write(1, b\'{"text": "a"}\\n{"text": "b"}\\n\')',
        'for _ in answers(): print(\'{"text": "\\\\ud800"}\', flush=True)',
        "for _ in answers(): sys.exit(0)",
        "sys.exit(1)",
    ],
)
def test_garbage_is_no_answer(make: Make, body: str):
    redactor = make(body)
    for failed in (1, 2):
        assert redactor.redact("x" * 90) is None
        assert (redactor.withheld, redactor.failed) == (0, failed)


@pytest.mark.parametrize("body", ["time.sleep(600)", "sys.stdin.readline(); time.sleep(600)"])
def test_silence_is_no_answer(make: Make, body: str):
    redactor = make(body, timeout_s=0.05, longest=1 << 20)
    assert redactor.redact("x" * (1 << 20)) is None  # more than a pipe holds
    assert redactor.failed == 1


def test_an_answer_too_many_is_not_taken_for_the_next_prompts(make: Make):
    redactor = make("for text in answers(): say(text); say('an answer too many')")
    assert redactor.redact("one") in ("one", None)  # None: both came at once
    if redactor._child is not None:
        with selectors.DefaultSelector() as selector:
            selector.register(redactor._child.stdout, selectors.EVENT_READ)
            assert selector.select(60)
        assert redactor.redact("two") is None
    assert redactor.failed == 1


def test_closing_ends_a_wait_at_once(make: Make):
    """Neither for an answer nor for the back-off does anybody wait."""
    redactor = make("print('', end='', flush=True); time.sleep(600)", backoff_s=lambda _: 600.0)
    done = threading.Event()

    def ask() -> None:
        redactor.redact("one")
        redactor.redact("two")
        done.set()

    thread = threading.Thread(target=ask)
    thread.start()
    while redactor._child is None:
        time.sleep(0.001)
    child = redactor._child
    redactor.close()
    assert done.wait(60)
    thread.join()
    assert child.returncode is not None


def test_a_line_of_brackets_is_no_answer(make: Make):
    redactor = make("for _ in answers(): print('[' * 40_000, flush=True)", longest=8192)
    assert redactor.redact("one") is None
    assert redactor.failed == 1


def test_whatever_goes_wrong_costs_one_prompt(make: Make, caplog: pytest.LogCaptureFixture):
    redactor = make(GOOD)
    exchange, failures = redactor._exchange, iter([MemoryError("of words of Ada's")])

    def fails_once(child: subprocess.Popen[bytes], line: bytes) -> bytes:
        for failure in failures:
            raise failure
        return exchange(child, line)

    redactor._exchange = fails_once  # type: ignore[method-assign]
    assert redactor.redact("one 1") is None
    assert redactor.redact("two 2") == "two #"
    assert redactor.failed == 1
    assert "MemoryError" in caplog.text
    assert "Ada" not in caplog.text


# Starts a child that hangs, says who it is, and waits for it.
WRAPPER = 'sleep 600 & echo $! > "$1.new"; mv "$1.new" "$1"; '


def test_what_the_program_started_ends_with_it(tmp_path: Path):
    command = ("/bin/sh", "-c", WRAPPER + "echo no answer; wait", "wrapper", str(tmp_path / "pid"))
    redactor = Redactor(command, longest=100, backoff_s=lambda _: 0.0, timeout_s=60.0)
    assert redactor.redact("one") is None
    assert wait_gone(int((tmp_path / "pid").read_text()), 60)
    redactor.close()


def test_a_killed_agent_takes_the_program_and_what_it_started_along(tmp_path: Path):
    code = (
        "import sys; from sprout.agent.redact import Redactor\n"
        f"command = ('/bin/sh', '-c', {WRAPPER + 'echo $$ > $1.own; wait'!r}, 'x', sys.argv[1])\n"
        "Redactor(command, longest=100, backoff_s=float, timeout_s=600).redact('one')"
    )
    child, own = tmp_path / "pid", tmp_path / "pid.own"
    with subprocess.Popen([sys.executable, "-c", code, child]) as agent:
        while not (own.exists() and own.read_text().strip()):
            assert agent.poll() is None
            time.sleep(0.01)
        agent.kill()
    assert wait_gone(int(child.read_text()), 60)
    assert wait_gone(int(own.read_text()), 60)


def test_a_program_that_is_not_there_is_named():
    with pytest.raises(ConfigError, match="redact_command: no-such-program"):
        Redactor(("no-such-program",), longest=1, backoff_s=float)
