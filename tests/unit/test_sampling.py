# SPDX-License-Identifier: Apache-2.0
"""Which prompts preprocessing keeps for evaluations, and what it says of them."""

import math
import os
from pathlib import Path
from typing import Any

import pytest
import tiny_tokenizer
from pydantic import ValidationError
from test_preprocess import policy, prompt

from sprout.config import Config, ControlConfig, SamplingConfig, TenantConfig, load
from sprout.errors import ConfigError, RequestError
from sprout.request.preprocess import Prepared, Preprocessor
from sprout.request.sampling import propensity
from sprout.request.settings import HINTS, Parameters, PreprocessSettings
from sprout.serve.render import placeholder_values
from sprout_ext.board import BoardMix, BoardWriter, Flag
from sprout_ext.ring import RingPrompt, RingReader, rings
from sprout_ext.sampler import Stream, draw_batch, fold_key


@pytest.fixture
def board(memory: Path):
    writer = BoardWriter(memory / "policy.board")
    yield lambda shares, **changes: writer.publish(policy(shares, **changes))
    writer.close()


@pytest.fixture
def make(memory: Path, tmp_path: Path):
    """A preprocessor that samples; settings as keywords."""
    made = []
    tokenizer = tiny_tokenizer.chatml(tmp_path / "chatml")

    def make(**changes: Any) -> Preprocessor:
        fields = {"tokenizer_dir": tokenizer, "shm_dir": memory, "hints": HINTS, "flights": 64}
        made.append(Preprocessor.open(PreprocessSettings(**fields | {"sample_share": 1} | changes)))
        return made[-1]

    yield make
    for preprocessor in made:
        preprocessor.close()


def ring(memory: Path) -> RingReader:
    (found,) = rings(memory)
    return found


def sampled(memory: Path) -> list[RingPrompt]:
    return ring(memory).drain()


def test_off_by_default_and_then_there_is_no_ring(make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    assert PreprocessSettings(Path("t")).sample_share == 0
    pre = make(sample_share=0.0)
    assert isinstance(pre.prepare([prompt("Hi")])[0], Prepared)
    assert rings(memory) == []
    assert not [name for name in os.listdir(memory) if "prompt" in name]


def test_a_prompt_is_kept_as_it_came_with_what_it_was_served_with(make, board, memory: Path):
    board((0.2, 0.5, 0.3), version=9, control_share=0.1, canary_share=0.5)
    pre = make()
    results = pre.prepare([prompt(f"Grüß {i}", 9, '{"sprout_task":"maths"}') for i in range(200)])
    found = sampled(memory)
    assert [p.text.decode() for p in found] == [f"Grüß {i}" for i in range(200)]
    levels = set()
    for got, p in zip(results, found, strict=True):
        assert (p.level, p.flags) == (got.level, got.flags)
        assert (p.task, p.tenant, p.max_tokens, p.policy_version) == (b"maths", b"", 9, 9)
        assert p.opened_ns == got.opened_ns
        # 0.45 of requests are drawn under the policy; the rest gets L0.
        assert p.propensity == pytest.approx({0: 0.45 * 0.2 + 0.55, 1: 0.225, 2: 0.135}[p.level])
        levels.add((p.level, p.flags))
    assert {(1, 0), (2, 0), (0, int(Flag.CONTROL)), (0, int(Flag.HELD_BACK))} <= levels


def test_propensities_of_the_levels_sum_to_one():
    entry = policy((0.25, 0.5, 0.25), control_share=0.125, canary_share=0.75)
    assert sum(propensity(entry, level) for level in range(3)) == pytest.approx(1)


def test_the_propensity_is_that_of_the_request_s_own_mix():
    mixes = (BoardMix("clinic", "", (1.0, 0.0, 0.0)), BoardMix("", "chat", (0.0, 0.0, 1.0)))
    entry = policy((0.25, 0.5, 0.25), mixes=mixes)
    assert propensity(entry, 2, b"clinic", b"chat") == 0
    assert propensity(entry, 2, b"", b"chat") == 1
    assert propensity(entry, 2, b"shop", b"") == 0.25


def test_what_was_certain_says_why(make, board, memory: Path):
    pre = make()
    pre.prepare([prompt("no policy")])
    board((0.0, 1.0, 0.0))
    other = make()
    other.prepare(
        [
            prompt("pinned", parameters='{"sprout_level":"L2"}'),
            prompt("off", parameters='{"sprout_off":true}'),
        ]
    )
    board((0.0, 1.0, 0.0), paused=True)
    other.prepare([prompt("paused")])
    found = {p.text: p for reader in rings(memory) for p in reader.drain()}
    assert {p.propensity for p in found.values()} == {1.0}
    assert {text: (p.level, p.flags) for text, p in found.items()} == {
        b"no policy": (0, Flag.FALLBACK),
        b"pinned": (2, Flag.PINNED),
        b"off": (0, Flag.OFF),
        b"paused": (0, Flag.PAUSED),
    }


@pytest.mark.parametrize("hints", [HINTS, frozenset()])
def test_a_request_can_refuse_whatever_the_operator_allows(hints, make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    make(hints=hints).prepare(
        [
            prompt("no", parameters='{"sprout_sample":false}'),
            prompt("yes", parameters='{"sprout_sample":true}'),
            prompt("neither"),
            prompt("no as text", parameters='{"sprout_sample":"false"}'),
        ]
    )
    reader = ring(memory)
    assert b"no" not in reader.path.read_bytes().replace(b"none", b"").replace(b"neither", b"")
    assert [p.text for p in reader.drain()] == [b"yes", b"neither"]
    assert reader.counts().refused == 2


def test_a_tenant_can_be_left_out(make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    pre = make(sample_refuse_tenants=frozenset({b"clinic"}))
    pre.prepare(
        [
            prompt(f"of a {tenant}", parameters=f'{{"sprout_tenant":"{tenant}"}}')
            for tenant in ("clinic", "shop")
        ]
    )
    assert [(p.tenant, p.text) for p in sampled(memory)] == [(b"shop", b"of a shop")]
    assert ring(memory).counts().refused == 1


def test_our_own_requests_are_never_sampled(make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    pre = make(probe_token="secret", evaluate_token="token")
    pre.prepare(
        [
            prompt("probe", parameters='{"sprout_probe":"secret"}'),
            prompt("evaluation", parameters='{"sprout_evaluate":"token"}'),
            prompt("no probe", parameters='{"sprout_probe":"guess"}'),
        ]
    )
    assert [p.text for p in sampled(memory)] == [b"no probe"]
    assert ring(memory).counts().refused == 0


def test_a_long_prompt_is_counted_and_not_cut(make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    make(sample_prompt_bytes=10).prepare([prompt("x" * 11), prompt("x" * 10)])
    assert [len(p.text) for p in sampled(memory)] == [10]
    assert ring(memory).counts().too_long == 1


def test_a_request_that_fails_is_not_sampled(make, board, memory: Path):
    board((1.0, 0.0, 0.0))
    results = make().prepare([prompt("x", max_tokens=0), prompt(b"\xff"), prompt("fine")])
    assert [isinstance(result, RequestError) for result in results] == [True, True, False]
    assert [p.text for p in sampled(memory)] == [b"fine"]


def test_a_policy_that_was_just_replaced_leaves_no_guess(make, board, memory: Path, monkeypatch):
    board((0.5, 0.5, 0.0), version=7)
    pre = make()
    choose = pre._board.choose_many

    class Between:
        """The board on which a policy follows right after the draw."""

        def by_prompt(self):
            return False

        def choose_many(self, first, count):
            choices = choose(first, count)
            board((0.9, 0.1, 0.0), version=8)
            return choices

    monkeypatch.setattr(pre, "_board", Between())
    pre.prepare([prompt("between two")])
    assert sampled(memory) == []
    assert ring(memory).counts().unknown == 1


def test_the_draw_is_its_own_and_can_be_replayed(make, board, memory: Path):
    """The stream of sampling, under a key without a policy; 500 of 2,000 within 5 deviations."""
    board((0.5, 0.5, 0.0), seed=3)
    pre = make(sample_share=0.25, node_id=5, stub_index=2, sample_ring_prompts=4096)
    texts = [b"%d" % i for i in range(2000)]
    levels = [got.level for got in pre.prepare([prompt(text) for text in texts[:1000]])]
    board((0.5, 0.5, 0.0), seed=4, version=8)  # which changes the levels' draws, not these
    levels += [got.level for got in pre.prepare([prompt(text) for text in texts[1000:]])]
    found = sampled(memory)
    key = fold_key(0, 5, pre._segment.uid, 2)
    drawn = draw_batch((0.25, 0.75), key, 0, 2000, Stream.SAMPLE) == 0
    assert [p.text for p in found] == [t for t, d in zip(texts, drawn, strict=True) if d]
    assert abs(len(found) - 500) < 5 * math.sqrt(2000 * 0.25 * 0.75)
    # Of the sampled, half are at L1, as of all: the draw does not follow the level.
    share = sum(p.level for p in found) / len(found)
    assert abs(share - sum(levels) / 2000) < 5 * math.sqrt(0.25 / len(found))


def test_settings_come_from_the_model_configuration():
    parameters = Parameters(
        {
            "tokenizer_dir": "/t",
            "sprout_sample_share": "0.05",
            "sprout_sample_prompt_bytes": "100",
            "sprout_sample_ring_prompts": "7",
            "sprout_sample_refuse_tenants": "clinic, bank",
        }
    )
    read = PreprocessSettings.read(parameters, "preprocessing_0_0")
    assert (read.sample_share, read.sample_prompt_bytes, read.sample_ring_prompts) == (0.05, 100, 7)
    assert read.sample_refuse_tenants == {b"clinic", b"bank"}


@pytest.mark.parametrize("share", ["-0.1", "1.5", "nan", "much"])
def test_a_wrong_share_is_named(share: str):
    parameters = Parameters({"tokenizer_dir": "/t", "sprout_sample_share": share})
    with pytest.raises(ConfigError, match="sprout_sample_share"):
        PreprocessSettings.read(parameters, "preprocessing_0_0")


def test_no_ring_where_there_is_no_memory(make, memory: Path):
    with pytest.raises(ConfigError, match="sprout_sample_share"):
        make(sample_ring_prompts=0)


# --- the configuration ---------------------------------------------------------------------------


def test_the_configuration_reaches_the_model(tmp_path: Path):
    environ = {
        "SPROUT_EVALUATE__SAMPLING__SHARE": "0.05",
        "SPROUT_EVALUATE__SAMPLING__REFUSE_TENANTS": "clinic,bank",
        "SPROUT_EVALUATE__SAMPLING__REDACT_COMMAND": "hide,--all",
    }
    cfg = load(environ=environ)
    assert cfg.evaluate.sampling.redact_command == ("hide", "--all")
    values = placeholder_values(cfg, engine_url="", tokenizer_dir=tmp_path, probe_token_file=None)
    read = PreprocessSettings.read(Parameters(values), "preprocessing_0_0")
    assert (read.sample_share, read.sample_prompt_bytes, read.sample_ring_prompts) == (
        0.05,
        8192,
        256,
    )
    assert read.sample_refuse_tenants == {b"clinic", b"bank"}
    off = placeholder_values(Config(), engine_url="", tokenizer_dir=tmp_path, probe_token_file=None)
    assert PreprocessSettings.read(Parameters(off), "preprocessing_0_0").sample_share == 0


@pytest.mark.parametrize(
    "name", ["", " ", "x" * 24, "a,b", "Grüße", "a\nb", "a\n", " clinic", "clinic "]
)
def test_no_name_of_a_tenant_is_named(name: str):
    with pytest.raises(ValidationError, match="refuse_tenants"):
        SamplingConfig(refuse_tenants=(name,))


@pytest.mark.parametrize("name", ["", " ", "x" * 24, "Grüße", "a\n", " acme", "acme "])
def test_no_promise_is_made_to_a_tenant_that_no_request_can_name(name: str):
    with pytest.raises(ValidationError, match="tenants"):
        ControlConfig(tenants={name: TenantConfig(opt_out=True)})


@pytest.mark.parametrize(
    ("key", "section"),
    [
        (r"evaluate\.sampling\.refuse_tenants", "[evaluate.sampling]\nrefuse_tenants = ['clinic']"),
        (r"control\.tenants", "[control.tenants.'mail room']\nminimum = 0.9"),
    ],
)
def test_tenants_that_are_not_heard_can_not_be_named(tmp_path: Path, key: str, section: str):
    file = tmp_path / "sprout.toml"
    deaf = "[request]\nhints = ['sprout_task', 'sprout_level']\n"
    file.write_text(deaf + section)
    with pytest.raises(ConfigError, match=rf"{key} .*request\.hints lacks sprout_tenant"):
        load(file, environ={})
    for fine in (deaf, section):
        file.write_text(fine)
        assert load(file, environ={})
