# SPDX-License-Identifier: Apache-2.0
"""The policy board: the agent writes the policy in force, Triton's stubs read it (csrc/board.h).

A reader never sees half a policy, whenever the writer is killed. A policy carries a deadline in
CLOCK_BOOTTIME; past it, or with no board, or with another directive pack, requests get level 0.
Tenants and task classes may have a mix of their own: a tenant's stands above a class's. Of the
requests of a mix with prices a share, at random, has its level chosen by its prompt, with weights
that lie beside the board under the name that `weights_name` gives.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from enum import IntEnum, IntFlag
from os import PathLike, fspath

from sprout_ext import _core
from sprout_ext._core import Choice

__all__ = [
    "MAX_MIXES",
    "MAX_POINTS",
    "NAME_LENGTH",
    "BoardMix",
    "BoardPoint",
    "BoardPolicy",
    "BoardPrices",
    "BoardPrompt",
    "BoardReader",
    "BoardState",
    "BoardWriter",
    "Choice",
    "Flag",
    "weights_name",
]

MAX_MIXES = 32  # of a policy
MAX_POINTS = 4  # of its prices
NO_WEIGHTS = "00" * 32  # in place of a digest
NAME_LENGTH = 23  # characters of a tenant or a task class, at most


class Flag(IntFlag):
    """Why a request got its level. 0: drawn under the policy."""

    PINNED = 1  # named by the client
    OFF = 2  # the client opted out: level 0
    CONTROL = 4  # drawn for comparison: level 0
    FALLBACK = 8  # no valid policy: level 0
    HELD_BACK = 16  # outside the canary share: level 0
    PAUSED = 32  # kill switch: level 0
    PROBE = 64  # Sprout's own readiness probe
    EVALUATION = 128  # an evaluation's: the answer goes to a judge, not to a client
    PROMPT = 256  # chosen by its prompt, not drawn from a mix
    UNSCORED = 1024  # drawn from its mix: its prompt was to choose, but weights are not to be had


class BoardState(IntEnum):
    """What `Choice.state` and `BoardReader.state` say; all but OK mean level 0."""

    OK = 0
    ABSENT = 1
    EXPIRED = 2
    CORRUPT = 3
    PACK = 4  # the policy is for another directive pack


@dataclass(frozen=True)
class BoardPoint:
    """Prices of a fraction of the requests whose prompt chooses."""

    fraction: float
    g_per_preference: float  # >= 0
    g: tuple[float, ...]  # (levels,) whatever the prompt


@dataclass(frozen=True)
class BoardPrices:
    """How prompts choose levels: `PromptPolicy` in control.proto has the rule."""

    g_per_joule: tuple[float, ...]  # (levels,)
    points: tuple[BoardPoint, ...]  # 1 … 4, fractions sum to 1


@dataclass(frozen=True)
class BoardMix:
    """The shares of one tenant or of one task class: exactly one of the two names is set."""

    tenant: str  # 1 … 23 printable ASCII characters
    task: str  # the same
    shares: tuple[float, ...]  # (levels,) of the policy, sums to 1
    prices: BoardPrices | None = None  # none: its prompts choose nothing


@dataclass(frozen=True)
class BoardPrompt(BoardPrices):
    """That prompts choose at all; and the prices of requests that have no mix of their own."""

    weights: str  # SHA-256 of the scorer's, 64 small hex digits; "": they are not on this node
    share: float  # of the requests that there are prices for


@dataclass(frozen=True)
class BoardPolicy:
    """A policy as it stands on the board."""

    version: int  # control-plane epoch << 32 | counter
    seed: int  # of the draws
    pack_hash: int  # of the directive pack that the shares refer to
    shares: tuple[float, ...]  # (levels,), 1 … 8, sums to 1
    control_share: float  # of all requests: level 0, the comparison
    canary_share: float  # of all requests: under the policy
    paused: bool  # kill switch
    deadline_boottime_ns: int  # CLOCK_BOOTTIME; from then on void
    intensity_g_per_kwh: float  # NaN = unknown
    pue: float  # power usage effectiveness
    embodied_g_per_s: float  # embodied carbon per device-second
    mixes: tuple[BoardMix, ...] = ()  # at most 32; `shares` is for those whom none fits
    prompt: BoardPrompt | None = None  # none: every level is drawn from a mix, no mix has prices

    def mix_of(self, tenant: bytes, task: bytes) -> BoardMix | None:
        """The mix of these names' own; b"" is none."""
        of_tenant = {mix.tenant.encode(): mix for mix in self.mixes if mix.tenant}
        of_task = {mix.task.encode(): mix for mix in self.mixes if mix.task}
        return of_tenant.get(tenant) or of_task.get(task)

    def shares_of(self, tenant: bytes, task: bytes) -> tuple[float, ...]:
        """(levels,) of the mix that a request of these names is under; b"" is none."""
        own = self.mix_of(tenant, task)
        return self.shares if own is None else own.shares

    def prices_of(self, tenant: bytes, task: bytes) -> BoardPrices | None:
        """By which the prompts of these names' requests choose."""
        own = self.mix_of(tenant, task)
        return self.prompt if own is None else own.prices

    def without_weights(self) -> "BoardPolicy":
        """The same on a node that has none: whose prompt would choose is drawn, and told apart."""
        return replace(self, prompt=self.prompt and replace(self.prompt, weights=""))


def weights_name(sha256: str) -> str:
    """Of the file in the board's directory that holds the weights of this digest."""
    return f"weights-{sha256}"


class BoardWriter(_core.BoardWriter):
    """The board's one writer. Goes on in a valid file, else puts a new one in its place.

    OSError: the file can't be made; with errno EBUSY, another process is writing it.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        super().__init__(fspath(path))

    def publish(self, policy: BoardPolicy) -> None:  # type: ignore[override]
        """Puts a policy in force. ValueError names the field that is out of range."""
        fields = vars(policy) | {"mixes": [astuple(mix) for mix in policy.mixes]}
        if (prompt := policy.prompt) is not None:
            try:
                digest = bytes.fromhex(prompt.weights or NO_WEIGHTS)
            except ValueError:
                raise ValueError(f"prompt: weights: {prompt.weights!r} is not hex") from None
            prices = prompt.g_per_joule, [astuple(point) for point in prompt.points]
            fields["prompt"] = (digest, prompt.share, prices)
        super().publish(**fields)


class BoardReader(_core.BoardReader):
    """Reads the board for one stub.

    `choose(sequence, tenant, task)` gives the level of one request, `choose_many(first_sequence,
    count, names)` those of a batch under one snapshot, `names` being (tenant, task) of each
    request; b"" is none, and names may be left out. Neither raises, whatever the file holds
    (ValueError: a name that no board can hold). A board that appears or is replaced is noticed
    within a second.

    `by_prompt()` says whether the policy in force has levels chosen by prompts, by weights that are
    on this node. Only then are texts of use: `choose(sequence, tenant, task, text)`,
    `choose_many(first_sequence, count, names, texts)`, where names may be None. Weights are read
    when they are first needed; while they are missing or broken the mix decides, and
    `Flag.UNSCORED` (`Choice.unscored`) says for whom.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        pack_hash: int,
        node_id: int,
        boot_epoch: int,
        stub_index: int,
    ) -> None:
        super().__init__(fspath(path), pack_hash, node_id, boot_epoch, stub_index)

    def policy(self) -> BoardPolicy | None:
        """The policy on the board, expired or not; None if there is none."""
        fields = self._policy()
        if fields is None:
            return None
        mixes = tuple(
            BoardMix(tenant, task, tuple(shares), prices and BoardPrices(*_prices(*prices)))
            for tenant, task, shares, prices in fields.pop("mixes")
        )
        prompt = fields.pop("prompt")
        if prompt is not None:
            digest, share, prices = prompt
            named = "" if digest.hex() == NO_WEIGHTS else digest.hex()
            prompt = BoardPrompt(*_prices(*prices), named, share)
        return BoardPolicy(**fields, mixes=mixes, prompt=prompt)

    def shares_by_prompt(
        self, text: bytes, tenant: bytes = b"", task: bytes = b""
    ) -> tuple[float, ...] | None:
        """(levels,) how likely each level is for a request whose prompt, this one, chooses.

        None: under the policy in force no prompt of these names' chooses, or its weights are not to
        be had.
        """
        found = self._shares(text, tenant, task)
        return None if found is None else tuple(found)

    def state(self) -> str:
        """ "ok", "absent", "expired", "corrupt" or "pack"."""
        return BoardState(self._state()).name.lower()


def _prices(
    g_per_joule: Sequence[float], points: Sequence[tuple[float, float, Sequence[float]]]
) -> tuple[tuple[float, ...], tuple[BoardPoint, ...]]:
    """As `BoardPrices` has them."""
    return tuple(g_per_joule), tuple(BoardPoint(part, y, tuple(g)) for part, y, g in points)
