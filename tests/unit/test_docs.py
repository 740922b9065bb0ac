# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from sprout.config import Config

ROOT = Path(__file__).parents[2]


def documented() -> dict[str, Any]:
    page = (ROOT / "docs/configuration.md").read_text()
    block = re.search(r"```toml\n(.*?)```", page, re.S)
    assert block is not None
    return tomllib.loads(block.group(1))


def test_every_setting_is_documented_with_its_default() -> None:
    page = documented()
    assert set(page) == set(Config.model_fields)
    defaults = Config().model_dump(mode="json")
    for section, keys in page.items():
        compare(section, keys, defaults[section])


def compare(section: str, keys: dict[str, Any], defaults: dict[str, Any]) -> None:
    assert set(keys) == set(defaults), section
    for key, value in keys.items():
        default = defaults[key]
        # "…", {} and the example intensity stand where the default is "unset".
        if value in ("…", {}) or default is None:
            continue
        if isinstance(value, dict):
            compare(f"{section}.{key}", value, default)
        else:
            assert value == default, f"{section}.{key}"


@pytest.mark.parametrize("page", sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md"]))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
