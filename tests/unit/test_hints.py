# SPDX-License-Identifier: Apache-2.0
"""Hints that clients give as request parameters."""

import json
from dataclasses import replace

import pytest

from sprout.directives import pack
from sprout.errors import RequestError
from sprout.request import hints
from sprout.request.hints import NONE, Hints
from sprout.request.settings import HINTS

PACK = pack("explicit")


def read(allowed=HINTS, token=None, **given):
    return hints.read(json.dumps(given), PACK, allowed, token)


@pytest.mark.parametrize("text", ["", "{}", '{"colour":"green","ratio":0.5}'])
def test_none(text):
    assert hints.read(text, PACK, HINTS, None) is NONE


def test_all():
    assert read(sprout_level="L2", sprout_task="maths", other=1.5) == Hints(level=2, task=b"maths")
    assert read(sprout_tenant="acme ~", sprout_task="chat") == Hints(tenant=b"acme ~", task=b"chat")
    assert read(sprout_tenant="x" * 23) == Hints(tenant=b"x" * 23)
    assert read(sprout_off=True) == Hints(off=True)
    assert read(sprout_off=False) == NONE


def test_an_empty_tenant_is_none():
    assert read(sprout_tenant="") == NONE


def test_switched_off_and_unknown_hints_are_ignored_and_counted():
    assert read(allowed=set(), sprout_level="L2", sprout_off=True) == Hints(ignored=2)
    assert read(allowed={"sprout_task"}, sprout_tenant="acme") == Hints(ignored=1)
    assert read(sprout_colour="green") == Hints(ignored=1)
    # What is ignored is not looked at either.
    assert read(allowed=set(), sprout_level=7) == Hints(ignored=1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sprout_level": "L3"}, "L0, L1, L2"),
        ({"sprout_level": 1}, "sprout_level"),
        ({"sprout_off": "true"}, "sprout_off"),
        ({"sprout_off": 1}, "sprout_off"),
        ({"sprout_task": "x" * 24}, "1 to 23"),
        ({"sprout_task": ""}, "1 to 23"),
        ({"sprout_task": "naïve"}, "ASCII"),
        ({"sprout_task": "a\nb"}, "printable"),
        ({"sprout_task": 3}, "ASCII"),
        ({"sprout_tenant": "x" * 24}, "sprout_tenant must have 1 to 23"),
        ({"sprout_tenant": "naïve"}, "sprout_tenant must be printable ASCII"),
        ({"sprout_tenant": "a\tb"}, "printable"),
        ({"sprout_tenant": "a\0"}, "printable"),
        ({"sprout_tenant": 0}, "ASCII"),
        ({"sprout_tenant": None}, "ASCII"),
    ],
)
def test_wrong_values_are_named(given, message):
    with pytest.raises(RequestError, match=message):
        read(**given)


def as_evaluation(**given):
    text = json.dumps(
        {"sprout_level": "L2", "sprout_task": "maths", "sprout_sample": False} | given
    )
    return hints.read(text, PACK, frozenset(), "probe", "secret")


def test_an_evaluation_is_heard_where_no_client_is_and_needs_its_token():
    heard = Hints(level=2, task=b"maths", evaluation=True, sample=False)
    assert as_evaluation(sprout_evaluate="secret") == heard
    assert as_evaluation(sprout_evaluate="secret", sprout_off=True) == replace(heard, ignored=1)
    assert as_evaluation() == Hints(ignored=2, sample=False)


@pytest.mark.parametrize("wrong", ["guess", "probe", "", 7, "\ud800"])
def test_a_wrong_token_of_an_evaluation_is_no_client_s_request(wrong):
    """It must not be served as one: not pinned, not sampled, in nobody's statistics."""
    with pytest.raises(RequestError, match=r"sprout_evaluate: .* not the server's"):
        as_evaluation(sprout_evaluate=wrong)
    with pytest.raises(RequestError, match="sprout_evaluate"):
        read(sprout_evaluate="secret")  # where no evaluation is known


@pytest.mark.parametrize("refusal", [False, "false", 0, None, "no"])
def test_a_refused_sample_is_heard_whatever_the_operator_allows(refusal):
    assert read(allowed=set(), sprout_sample=refusal) == Hints(sample=False)
    assert read(sprout_sample=refusal, sprout_off=True) == Hints(off=True, sample=False)


def test_a_wanted_sample_changes_nothing():
    assert read(allowed=set(), sprout_sample=True) == NONE


def test_half_of_a_surrogate_pair_is_no_token():
    """JSON can say it, and nothing can encode it: it must not end the batch that it came in."""
    text = '{"sprout_probe": "\\ud800"}'
    assert hints.read(text, PACK, HINTS, "probe", "secret") == Hints(ignored=1)


@pytest.mark.parametrize("name", ["sprout_level", "sprout_off", "sprout_tenant", "sprout_task"])
def test_half_of_a_surrogate_pair_is_refused_in_words_that_can_be_sent(name):
    with pytest.raises(RequestError) as found:
        read(**{name: "\ud800"})
    assert str(found.value).encode()


def test_probe_needs_the_token():
    assert read(token="secret", sprout_probe="secret").probe
    assert read(token="secret", sprout_probe="guess") == Hints(ignored=1)
    assert read(token="secret", sprout_probe=5) == Hints(ignored=1)
    assert read(token=None, sprout_probe="") == Hints(ignored=1)
