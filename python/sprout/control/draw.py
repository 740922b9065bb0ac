# SPDX-License-Identifier: Apache-2.0
"""Draws of prompts for an evaluation: the classes in equal parts, each prompt with its weight.

A draw takes a class's prompts in the order of a hash of seed and id, and gives them all in the
order of another. So calls of the same seed and total, each without what the others gave, make up
one draw in one random order: any first part of it is a random part, and every prompt has the weight
that the whole draw gives it. What comes or goes between the calls moves few of the others.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from operator import itemgetter

from sprout.v1 import control_pb2 as pb


@dataclass(frozen=True)
class Drawable:
    """Of one task class."""

    chance: float  # that a sampled prompt of it had of being here
    prompts: Sequence[pb.SampledPrompt]


@dataclass(frozen=True)
class Stock:
    """What is kept at one moment. Its prompts are not changed by anybody."""

    classes: Mapping[str, Drawable]

    def draw(
        self, count: int, seed: int, without: Set[int] = frozenset(), total: int = 0
    ) -> list[pb.SampledPrompt]:
        """At most `count` of a draw of `total` prompts: those of it that are not in `without`.

        total 0: so many that `count` new ones are among them. The same prompts for the same seed
        while the same are kept. `inclusion` and `stands_for` are set (see the .proto), the latter
        for the draw as a whole. With a total under the number of classes some are in no draw.
        """
        key = seed.to_bytes(8, "little")
        names = sorted(self.classes, key=lambda name: _hash(name.encode(), key, b"class"))
        groups = [self.classes[name] for name in names]
        known = [sum(p.id in without for p in group.prompts) for group in groups]
        sizes = [len(group.prompts) for group in groups]
        found: list[pb.SampledPrompt] = []
        for group, had, part in zip(
            groups, known, parts(sizes, total or sum(known) + count), strict=True
        ):
            left = [p for p in group.prompts if p.id not in without]
            taken = max(part, had)  # the caller may have more of it than its part
            if taken == had:
                continue
            left.sort(key=lambda p: _hash(p.id.to_bytes(8, "little"), key, b"rank"))
            for prompt in left[: taken - had]:
                copy = pb.SampledPrompt()
                copy.CopyFrom(prompt)
                copy.inclusion = group.chance
                copy.stands_for = len(group.prompts) / taken / group.chance
                found.append(copy)
        found.sort(key=lambda p: _hash(p.id.to_bytes(8, "little"), key, b"order"))
        return found[:count]


def parts(sizes: Sequence[int], total: int) -> list[int]:
    """Of each class: equal, as far as it lasts. What does not divide goes to the last of a size."""
    found = [0] * len(sizes)
    left = total
    # Those that don't last leave the rest to others.
    for place, (i, size) in enumerate(sorted(enumerate(sizes), key=itemgetter(1))):
        found[i] = min(size, left // (len(sizes) - place))
        left -= found[i]
    return found


def _hash(text: bytes, key: bytes, of: bytes) -> bytes:
    """The same for the same three; one is independent of another."""
    return blake2b(text, key=key, person=of, digest_size=8).digest()
