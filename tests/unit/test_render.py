# SPDX-License-Identifier: Apache-2.0
"""Filling in the model repository."""

import stat

import pytest

from sprout.config import Config
from sprout.errors import ConfigError
from sprout.serve.render import placeholder_values, render, repository_source
from sprout.units import node_id

SIMPLE = """name: "m"
max_batch_size: ${triton_max_batch_size}
dynamic_batching { max_queue_delay_microseconds: ${max_queue_delay_microseconds} }
# a comment may say ${anything}
parameters { key: "a" value: { string_value: "${tokenizer_dir}" } }
parameters { key: "b" value: { string_value: "${other}" } }
"""


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "source" / "m"
    (model / "1" / "__pycache__").mkdir(parents=True)
    (model / "config.pbtxt").write_text(SIMPLE)
    (model / "1" / "model.py").write_text("x = 1\n")
    (model / "1" / "__pycache__" / "model.pyc").write_bytes(b"\0")
    return tmp_path / "source"


def test_placeholders_are_filled_and_others_stay(source, tmp_path):
    out = tmp_path / "out"
    render(source, out, {"triton_max_batch_size": "8", "tokenizer_dir": "/t"})
    text = (out / "m" / "config.pbtxt").read_text()
    assert "max_batch_size: 8\n" in text
    assert "max_queue_delay_microseconds: 0 " in text  # the stock tool's default
    assert '"/t"' in text
    assert '"${other}"' in text
    assert (out / "m" / "1" / "model.py").read_text() == "x = 1\n"
    assert not (out / "m" / "1" / "__pycache__").exists()


def test_only_the_owner_can_read_it(source, tmp_path):
    out = tmp_path / "out"
    render(source, out, {"triton_max_batch_size": "8"})
    for path in (out / "m", out / "m" / "1"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    for path in (out / "m" / "config.pbtxt", out / "m" / "1" / "model.py"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_rendering_again_replaces(source, tmp_path):
    out = tmp_path / "out"
    render(source, out, {"triton_max_batch_size": "8"})
    (out / "m" / "1" / "old.py").touch()
    render(source, out, {"triton_max_batch_size": "9"})
    assert "max_batch_size: 9" in (out / "m" / "config.pbtxt").read_text()
    assert not (out / "m" / "1" / "old.py").exists()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "triton_max_batch_size is needed"),
        ({"triton_max_batch_size": "8", "tokeniser_dir": "/t"}, "tokeniser_dir"),
        ({"triton_max_batch_size": "0"}, "no positive number"),
        ({"triton_max_batch_size": "many"}, "no positive number"),
        ({"triton_max_batch_size": "8", "tokenizer_dir": 'a"b'}, "can't stand"),
        ({"triton_max_batch_size": "8", "tokenizer_dir": "a\nb"}, "can't stand"),
    ],
)
def test_what_can_not_be_is_refused_and_nothing_written(source, tmp_path, values, message):
    with pytest.raises(ConfigError, match=message):
        render(source, tmp_path / "out", values)
    assert not (tmp_path / "out").exists()


def test_source_is_not_rendered_onto_itself(source):
    with pytest.raises(ConfigError, match="source itself"):
        render(source, source, {"triton_max_batch_size": "8"})
    assert (source / "m" / "config.pbtxt").read_text() == SIMPLE


def test_empty_source_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no models"):
        render(tmp_path, tmp_path / "out", {})


def test_configuration_fills_every_placeholder_of_ours(tmp_path):
    """No sprout_* placeholder is left, and none of the values is for nothing."""
    cfg = Config.model_validate(
        {
            "stack": {"shm_dir": "/dev/shm/x"},
            "agent": {"node": "n1"},
            "request": {"hints": ["sprout_off"], "accept_rendered": False},
        }
    )
    values = placeholder_values(
        cfg,
        engine_url="http://e",
        tokenizer_dir=tmp_path,
        probe_token_file=tmp_path / "probe",
        evaluate_token_file=tmp_path / "evaluate",
    )
    assert values["sprout_evaluate_token_file"] == str(tmp_path / "evaluate")
    assert values["sprout_node_id"] == str(node_id("n1"))
    assert values["sprout_hints"] == "sprout_off"
    assert values["sprout_accept_rendered"] == "False"
    render(repository_source(), tmp_path / "out", values)
    texts = [path.read_text() for path in (tmp_path / "out").glob("*/config.pbtxt")]
    assert len(texts) == 5
    left = {line.strip() for text in texts for line in text.splitlines() if "${sprout" in line}
    assert left == {'value: { string_value: "${sprout_chain_model_name}" }'}


def test_no_probe_token_and_no_hints_are_unset(tmp_path):
    cfg = Config.model_validate({"request": {"hints": []}})
    values = placeholder_values(cfg, engine_url="", tokenizer_dir=tmp_path, probe_token_file=None)
    assert values["sprout_hints"] == values["sprout_probe_token_file"] == ""
    assert values["sprout_evaluate_token_file"] == ""
