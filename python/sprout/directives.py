# SPDX-License-Identifier: Apache-2.0
"""Directive packs: the levels of a model family and the text of each.

`paper` holds the wording of arXiv 2403.12900. `explicit` names the length in words: small models
shorten their answers monotonically under it, under the paper's wording they do not.
"""

import hashlib
from dataclasses import dataclass

from sprout.errors import ConfigError


@dataclass(frozen=True)
class Pack:
    """Levels in order; the first is L0, which is no directive at all."""

    name: str
    directives: tuple[str, ...]  # (levels,), directives[0] == ""
    # What the directive follows where the client brings no system prompt of its own.
    base_system_prompt: str = ""

    def __post_init__(self) -> None:
        if not self.directives or self.directives[0]:
            raise ConfigError(f"pack {self.name!r}: the first level is L0 and has no text")

    @property
    def levels(self) -> tuple[str, ...]:
        """("L0", "L1", …), as long as the pack."""
        return tuple(f"L{i}" for i in range(len(self.directives)))

    @property
    def hash(self) -> int:
        """64 bits over all texts: a policy for another pack must not be applied."""
        text = "\0".join((self.base_system_prompt, *self.directives))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")

    def level(self, name: str) -> int:
        """Index of a level's name. ConfigError if there is none."""
        try:
            return self.levels.index(name)
        except ValueError:
            raise ConfigError(
                f"unknown level {name!r}: pack {self.name!r} has {', '.join(self.levels)}"
            ) from None


PACKS = {
    pack.name: pack
    for pack in (
        Pack("paper", ("", "Always answer briefly", "Always answer very briefly")),
        Pack(
            "explicit",
            (
                "",
                "Answer briefly, in at most two short sentences.",
                "Answer in as few words as possible: one short sentence or only the final answer.",
            ),
            base_system_prompt="You are a helpful assistant.",
        ),
    )
}


def pack(name: str) -> Pack:
    """A pack by name. ConfigError names the known ones."""
    try:
        return PACKS[name]
    except KeyError:
        raise ConfigError(f"unknown directive pack {name!r}: {', '.join(PACKS)}") from None
