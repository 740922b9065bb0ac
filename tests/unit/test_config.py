# SPDX-License-Identifier: Apache-2.0
"""Precedence, unknown keys, and the round trip that a stack's processes rely on."""

import os
from pathlib import Path
from typing import get_args

import pytest

from sprout import config
from sprout.config import Config, load, private_folder
from sprout.errors import ConfigError, StackError
from sprout.serve.state import dump_toml


def test_the_public_list_has_every_section() -> None:
    sections = [Config]
    for section in sections:
        for field in section.model_fields.values():
            kinds = [field.annotation, *get_args(field.annotation)]
            sections += [k for k in kinds if isinstance(k, type) and issubclass(k, config.Section)]
    assert {section.__name__ for section in sections} <= set(config.__all__)
    assert len(sections) > len(Config.model_fields)
    assert all(hasattr(config, name) for name in config.__all__)


def test_flags_win_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "sprout.toml"
    file.write_text("[control]\nxi = 0.3\nttl_s = 60\nport = 1\n")
    environ = {"SPROUT_CONTROL__XI": "0.2", "SPROUT_CONTROL__TTL_S": "50"}
    cfg = load(file, environ=environ, flags={"control.xi": "0.1", "control.host": None})
    assert (cfg.control.xi, cfg.control.ttl_s, cfg.control.port) == (0.1, 50, 1)
    assert cfg.control.host == "127.0.0.1"


def test_the_file_named_in_the_environment_is_read(tmp_path: Path) -> None:
    file = tmp_path / "other.toml"
    file.write_text("[stack]\nname = 'other'\n")
    assert load(environ={"SPROUT_CONFIG": str(file)}).stack.name == "other"
    with pytest.raises(ConfigError, match="can't read"):
        load(environ={"SPROUT_CONFIG": str(tmp_path / "absent.toml")})


def test_sprout_toml_here_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load(environ={}) == Config()
    (tmp_path / "sprout.toml").write_text("[engine]\nslots = 2\n")
    assert load(environ={}).engine.slots == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"control.exi": "1"}, r"unknown key control\.exi; did you mean control\.xi\?"),
        ({"trition.http_port": "1"}, r"unknown key trition; did you mean triton\?"),
        (
            {"control.tls.certficate": "x"},
            r"unknown key control\.tls\.certficate; did you mean control\.tls\.certificate\?",
        ),
        ({"control.xi": "1", "control.xi.low": "1"}, "xi is a value, not a section"),
        ({"control.ttl_s": "inf"}, r"control\.ttl_s: .*finite"),
        ({"control.ttl_s": "604801"}, r"control\.ttl_s: .*less than or equal"),
        ({"control.xi": "nan"}, r"control\.xi"),
        ({"control.prior_preference": "1,nan,1"}, r"control\.prior_preference\.1: .*finite"),
        ({"control.xi": "2"}, r"control\.xi: .*less than or equal to 1"),
        ({"engine.kind": "gpt"}, r"engine\.kind"),
        ({"stack.name": "Has Space"}, r"stack\.name"),
        ({"carbon.sources": "trace"}, r"needs carbon\.trace"),
        ({"carbon.source": "gb"}, r"did you mean carbon\.sources\?"),
        ({"carbon.sources": ""}, r"carbon\.sources: .*at least 1"),
        ({"carbon.sources": "constant,constant"}, "names one twice"),
        ({"carbon.sources": "gb", "carbon.zone": "DE"}, "knows Great Britain alone, not DE"),
        ({"carbon.sources": "watttime"}, r"needs carbon\.watttime_username"),
        ({"carbon.sources": "electricity_maps"}, r"needs carbon\.electricity_maps_key_file"),
        ({"carbon.sources": "country"}, r"needs carbon\.country"),
        ({"carbon.country": "Germany"}, r"carbon\.country: .*pattern"),
        ({"carbon.fallback": "average"}, r"carbon\.fallback"),
        ({"carbon.fallback": "-1"}, r"carbon\.fallback"),
    ],
)
def test_a_wrong_setting_is_named(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(environ={}, flags=flags)


def test_an_unknown_environment_variable_is_named() -> None:
    with pytest.raises(ConfigError, match=r"control\.exi; did you mean control\.xi"):
        load(environ={"SPROUT_CONTROL__EXI": "1"})


def test_broken_toml_is_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "sprout.toml"
    file.write_text("[control\n")
    with pytest.raises(ConfigError, match=r"sprout\.toml"):
        load(file, environ={})


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "sprout.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match=r"sprout\.toml"):
        load(file, environ={})


def test_a_private_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = tmp_path / "a" / "b"
    private_folder(mine)
    mine.chmod(0o777)
    private_folder(mine)
    assert mine.stat().st_mode & 0o777 == 0o700
    (tmp_path / "link").symlink_to(mine)
    (tmp_path / "file").touch()
    for name in ("link", "file", "file/below"):
        with pytest.raises(StackError, match=name):
            private_folder(tmp_path / name)
    monkeypatch.setattr(os, "getuid", lambda: mine.stat().st_uid + 1)
    with pytest.raises(StackError, match="not a folder of this user"):
        private_folder(mine)


@pytest.mark.parametrize("where", ["environ", "flags"])
def test_lists_come_as_comma_separated_text(where: str) -> None:
    text = "sprout_level,sprout_task"
    cfg = (
        load(environ={"SPROUT_REQUEST__HINTS": text})
        if where == "environ"
        else load(environ={}, flags={"request.hints": text})
    )
    assert cfg.request.hints == ("sprout_level", "sprout_task")
    assert load(environ={}, flags={"request.hints": ""}).request.hints == ()


def test_nested_sections_are_reached(tmp_path: Path) -> None:
    cfg = load(environ={}, flags={"control.tls.ca": str(tmp_path / "ca.pem")})
    assert cfg.control.tls.ca == tmp_path / "ca.pem"


def test_a_dumped_configuration_reads_back_the_same(tmp_path: Path) -> None:
    cfg = load(
        environ={},
        flags={
            "stack.state_dir": str(tmp_path / 'a "quoted" \\ path é'),
            "control.prior_preference": "0.5,0.3,0.2",
            "control.tls.ca": "/ca",
            "carbon.sources": "trace",
            "carbon.fallback": "250",
            "carbon.trace": "/t.csv",
            "request.accept_rendered": "false",
            "request.hints": "",
        },
    )
    file = tmp_path / "dumped.toml"
    file.write_text(dump_toml(cfg))
    assert load(file, environ={}) == cfg
