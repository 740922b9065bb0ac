# SPDX-License-Identifier: Apache-2.0
"""Files that the configuration names, where the containers have them.

Nothing is copied: people put them into the folder `secrets/`, under their settings' names. Keys and
tokens most of them; a trace, a profile or prompts go the same way.
"""

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from sprout.config import Config, Section

SECRETS = Path("/etc/sprout/secrets")
# The one file that Triton itself reads too; the others are none of its business.
TRITONS = "evaluate.schedule.token_file"
_SECTIONS = ("control", "carbon", "evaluate")  # of agent, control plane and evaluator


def _files(model: Any, prefix: str) -> Iterator[str]:
    """The settings that name a file, in their order."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _files(field.annotation, f"{prefix}{name}.")
        elif Path in (field.annotation, *get_args(field.annotation)):
            yield f"{prefix}{name}"


SETTINGS = tuple(
    setting
    for name in _SECTIONS
    for setting in _files(Config.model_fields[name].annotation, f"{name}.")
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
