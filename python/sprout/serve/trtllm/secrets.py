# SPDX-License-Identifier: Apache-2.0
"""Files that the configuration names, where the containers have them.

Nothing is copied: people put them into the folder `secrets/`, under their settings' names. Keys and
tokens most of them; a trace, a profile or prompts go the same way.
"""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sprout.config import Config

SECRETS = Path("/etc/sprout/secrets")
# The one file that Triton itself reads too; the others are none of its business.
TRITONS = "evaluate.schedule.token_file"
SETTINGS = (
    *("control.tls.certificate", "control.tls.key", "control.tls.ca", "control.tls.token_file"),
    *("control.profile_file", "control.prompt.predictor"),
    *("carbon.electricity_maps_key_file", "carbon.watttime_password_file", "carbon.trace"),
    *("evaluate.prompts_file", "evaluate.judge.key_file", "evaluate.judge.instructions_file"),
    *("evaluate.judge.recorded_file", TRITONS),
)


def named(cfg: Config) -> dict[str, Path]:
    """What it names, by setting; absolute."""
    found = {setting: _get(cfg, setting) for setting in SETTINGS}
    return {key: path.expanduser().absolute() for key, path in found.items() if path is not None}


def moved(tree: dict[str, Any], files: Mapping[str, Path]) -> None:
    """The configuration's tree, in place: each file of `named` where it is mounted."""
    for setting in files:
        *sections, key = setting.split(".")
        place = tree
        for section in sections:
            place = place[section]
        place[key] = SECRETS / setting


def steps(files: Mapping[str, Path]) -> str:
    """Of the README: which files to put where. Nothing, where none is named."""
    if not files:
        return ""
    lines = [
        f"install -m 600 {shlex.quote(str(path))} secrets/{setting}"
        for setting, path in files.items()
    ]
    return "\n".join(
        [
            "## Files that it needs",
            "",
            "`sprout.toml` names them; nothing was copied. Put each into `secrets/` before the",
            "start, and again when it changes (of this machine; elsewhere, under the same name):",
            "",
            "```bash",
            *lines,
            "```",
            "",
            "",
        ]
    )


def triton_volume(files: Mapping[str, Path]) -> str:
    """Of compose.yaml: the evaluation's token for Triton, or nothing.

    Written out, because the short form makes a folder of a file that is missing.
    """
    if TRITONS not in files:
        return ""
    return (
        "      - type: bind\n"
        f"        source: ./secrets/{TRITONS}\n"
        f"        target: {SECRETS / TRITONS}\n"
        "        read_only: true\n"
        "        bind: {create_host_path: false}\n"
    )


def _get(cfg: Config, setting: str) -> Path | None:
    found: Any = cfg
    for part in setting.split("."):
        found = getattr(found, part)
    return None if found is None else Path(found)
