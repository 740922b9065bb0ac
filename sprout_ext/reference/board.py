# SPDX-License-Identifier: Apache-2.0
"""The policy board over its bytes (csrc/board.h).

Words: 0 magic, 1 layout, 2 boot id, 3 active buffer, 4-7 unused; two buffers of 2000 words from 8
on: 0 sequence (odd while written), 1-1993 payload, 1994 checksum = fold(sequence, payload),
1995-1999 unused. Payload: version, seed, pack hash, shape (levels | paused << 8 | present << 9),
deadline, control share, canary share, intensity, pue, embodied g/s, mixes (how many | bits of those
that are tenants' << 32), eight shares; then 32 mixes of 11 words: name (three words), eight shares;
then the digest of the weights (four words) and the share; then 33 sets of prices of 49 words, of
all others and of each mix: number of points, eight grams a joule, and four points of ten words:
fraction, grams a preference, eight grams. What is not used is zero.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from sprout_ext.board import (
    MAX_MIXES,
    MAX_POINTS,
    NAME_LENGTH,
    NO_WEIGHTS,
    BoardMix,
    BoardPoint,
    BoardPolicy,
    BoardPrices,
    BoardPrompt,
    BoardState,
    Flag,
)
from sprout_ext.reference.prices import (
    check_prices,
    level_by_prompt,
    scorer_of,
    shares_by_prompt,
)
from sprout_ext.reference.sampler import draws, fold_key, thresholds
from sprout_ext.reference.words import Words, bits, boot_id, create, fold, real, signed
from sprout_ext.sampler import Stream

MAGIC = int.from_bytes(b"SPRBRD01", "little")
LAYOUT = 4
SIZE = 32064
_BUFFER, _BUFFER_WORDS, _PAYLOAD = 8, 2000, 1993
_SHARES, _ROWS, _ROW, _PROMPT, _SETS, _SET, _POINT = 11, 19, 11, 371, 376, 49, 10


@dataclass(frozen=True, slots=True)
class Choice:
    """As `sprout_ext.Choice`."""

    level: int
    flags: int
    version: int
    seed: int
    intensity_g_per_kwh: float
    pue: float
    embodied_g_per_s: float
    state: int

    @property
    def unscored(self) -> bool:
        return bool(self.flags & Flag.UNSCORED)


def _check(policy: BoardPolicy) -> None:
    thresholds(policy.shares)
    _check_mixes(policy)
    for name in ("control_share", "canary_share"):
        if not 0 <= getattr(policy, name) <= 1:
            raise ValueError(f"{name}: not in [0, 1]")
    if math.isinf(policy.intensity_g_per_kwh):
        raise ValueError("intensity_g_per_kwh: neither finite nor NaN")
    if not (math.isfinite(policy.pue) and policy.pue > 0):
        raise ValueError("pue: not a finite number > 0")
    if not (math.isfinite(policy.embodied_g_per_s) and policy.embodied_g_per_s >= 0):
        raise ValueError("embodied_g_per_s: not a finite number >= 0")
    if policy.prompt is not None:
        check_prices(policy.prompt, len(policy.shares))
        if not 0 <= policy.prompt.share <= 1:
            raise ValueError("prompt: share: not in [0, 1]")
    elif any(mix.prices is not None for mix in policy.mixes):
        raise ValueError("mixes: prices, and none for all others")


def _check_mixes(policy: BoardPolicy) -> None:
    if len(policy.mixes) > MAX_MIXES:
        raise ValueError("mixes: at most 32")
    if len({(mix.tenant, mix.task) for mix in policy.mixes}) < len(policy.mixes):
        raise ValueError("mixes: there are two of one name")
    for mix in policy.mixes:
        name = mix.tenant or mix.task
        if bool(mix.tenant) == bool(mix.task):
            raise ValueError("mixes: each of a tenant or of a task")
        if not (len(name) <= NAME_LENGTH and name.isascii() and name.isprintable()):
            raise ValueError("mixes: a name must have 1 to 23 printable ASCII characters")
        if len(mix.shares) != len(policy.shares):
            raise ValueError("mixes: each has as many levels")
        thresholds(mix.shares)
        if mix.prices is not None:
            check_prices(mix.prices, len(policy.shares))


def _padded(shares: tuple[float, ...]) -> list[int]:
    return [bits(share) for share in (*shares, *([0.0] * (8 - len(shares))))]


def _payload(policy: BoardPolicy) -> list[int]:
    tenants = sum(bool(mix.tenant) << i for i, mix in enumerate(policy.mixes))
    rows: list[int] = []
    for mix in policy.mixes:
        name = (mix.tenant or mix.task).encode().ljust(24, b"\0")
        rows += [int.from_bytes(name[i : i + 8], "little") for i in (0, 8, 16)]
        rows += _padded(mix.shares)
    return [
        policy.version,
        policy.seed,
        policy.pack_hash,
        len(policy.shares) | policy.paused << 8 | 1 << 9,
        policy.deadline_boottime_ns & ((1 << 64) - 1),
        bits(policy.control_share),
        bits(policy.canary_share),
        bits(policy.intensity_g_per_kwh),
        bits(policy.pue),
        bits(policy.embodied_g_per_s),
        len(policy.mixes) | tenants << 32,
        *_padded(policy.shares),
        *rows,
        *([0] * (_PROMPT - _ROWS - len(rows))),
        *_prompt_words(policy),
    ]


def _prompt_words(policy: BoardPolicy) -> list[int]:
    prompt, words = policy.prompt, [0] * (_SETS - _PROMPT)
    if prompt is not None:
        digest = bytes.fromhex(prompt.weights or NO_WEIGHTS)
        words = [int.from_bytes(digest[i : i + 8], "little") for i in (0, 8, 16, 24)]
        words.append(bits(prompt.share))
    for prices in (prompt, *(mix.prices for mix in policy.mixes)):
        words += _prices_words(prices)
    return words + [0] * (_PAYLOAD - _PROMPT - len(words))


def _prices_words(prices: BoardPrices | None) -> list[int]:
    words: list[int] = []
    if prices is not None:
        words += [len(prices.points), *_padded(prices.g_per_joule)]
        for point in prices.points:
            words += [bits(point.fraction), bits(point.g_per_preference), *_padded(point.g)]
    return words + [0] * (_SET - len(words))


def _prices(payload: list[int], number: int, levels: int) -> BoardPrices | None:
    """number: of the set."""
    words = payload[_SETS + number * _SET : _SETS + (number + 1) * _SET]
    if (count := words[0] & 0xFFFFFFFF) > MAX_POINTS:
        raise ValueError("points")
    rows = [words[9 + i * _POINT : 9 + (i + 1) * _POINT] for i in range(count)]
    points = [
        BoardPoint(real(row[0]), real(row[1]), tuple(real(word) for word in row[2 : 2 + levels]))
        for row in rows
    ]
    per_joule = tuple(real(word) for word in words[1 : 1 + levels])
    return BoardPrices(per_joule, tuple(points)) if count else None


def _prompt(payload: list[int], levels: int) -> BoardPrompt | None:
    prices = _prices(payload, 0, levels)
    if prices is None:
        return None
    digest = b"".join(word.to_bytes(8, "little") for word in payload[_PROMPT : _PROMPT + 4])
    named = "" if digest.hex() == NO_WEIGHTS else digest.hex()
    return BoardPrompt(prices.g_per_joule, prices.points, named, real(payload[_PROMPT + 4]))


def _mix(row: list[int], tenant: int, levels: int, prices: BoardPrices | None) -> BoardMix:
    padded = b"".join(word.to_bytes(8, "little") for word in row[:3])
    name = padded.rstrip(b"\0").decode("latin-1")  # a zero inside is no printable ASCII either
    shares = tuple(real(word) for word in row[3 : 3 + levels])
    return BoardMix(name if tenant else "", "" if tenant else name, shares, prices)


def _policy(payload: list[int]) -> BoardPolicy:
    levels, mixes, tenants = payload[3] & 0xFF, payload[10] & 0xFFFFFFFF, payload[10] >> 32
    if levels > 8 or mixes > MAX_MIXES:
        raise ValueError("shape")
    rows = [payload[_ROWS + i * _ROW : _ROWS + (i + 1) * _ROW] for i in range(mixes)]
    return BoardPolicy(
        version=payload[0],
        seed=payload[1],
        pack_hash=payload[2],
        shares=tuple(real(word) for word in payload[_SHARES : _SHARES + levels]),
        control_share=real(payload[5]),
        canary_share=real(payload[6]),
        paused=bool(payload[3] >> 8 & 1),
        deadline_boottime_ns=signed(payload[4]),
        intensity_g_per_kwh=real(payload[7]),
        pue=real(payload[8]),
        embodied_g_per_s=real(payload[9]),
        mixes=tuple(
            _mix(row, tenants >> i & 1, levels, _prices(payload, 1 + i, levels))
            for i, row in enumerate(rows)
        ),
        prompt=_prompt(payload, levels),
    )


def _active(words: Words) -> BoardPolicy | None:
    """The policy in the active buffer; None if cleared. ValueError: corrupt."""
    magic, layout, _, active = words.read(0, 4)
    if (magic, layout) != (MAGIC, LAYOUT) or active > 1:
        raise ValueError("header")
    at = _BUFFER + active * _BUFFER_WORDS
    sequence, *payload = words.read(at, 1 + _PAYLOAD)
    if sequence & 1 or words[at + 1 + _PAYLOAD] != fold([sequence, *payload]):
        raise ValueError("buffer")
    if not payload[3] >> 9 & 1:
        return None
    policy = _policy(payload)
    _check(policy)
    return policy


class BoardWriter:
    """Writes as the core does; a new file unless there is one."""

    def __init__(self, path: str | PathLike[str]) -> None:
        target = Path(path)
        fresh = not target.exists()
        if fresh:
            create(target, SIZE, (MAGIC, LAYOUT, boot_id(), 0), replace=True)
        self._words = Words(target, SIZE)
        if fresh:
            self.clear()

    def _write(self, payload: list[int]) -> None:
        idle = 1 - (self._words[3] & 1)
        at = _BUFFER + idle * _BUFFER_WORDS
        odd = (self._words[at] + 1) | 1
        self._words[at] = odd
        self._words.write(at + 1, payload)
        self._words[at + 1 + _PAYLOAD] = fold([odd + 1, *payload])
        self._words[at] = odd + 1
        self._words[3] = idle

    def publish(self, policy: BoardPolicy) -> None:
        """Puts a policy in force."""
        _check(policy)
        self._write(_payload(policy))

    def clear(self) -> None:
        """No policy."""
        self._write([0] * _PAYLOAD)

    def close(self) -> None:
        """Lets go of the file."""
        self._words.close()


class BoardReader:
    """Opens the file anew for each call."""

    def __init__(
        self,
        path: str | PathLike[str],
        pack_hash: int,
        node_id: int,
        boot_epoch: int,
        stub_index: int,
    ) -> None:
        self._path, self._pack_hash = Path(path), pack_hash
        self._stub = (node_id, boot_epoch, stub_index)

    def _read(self) -> tuple[BoardState, BoardPolicy | None]:
        try:
            words = Words(self._path, SIZE)
        except FileNotFoundError:
            return BoardState.ABSENT, None
        except (OSError, ValueError):
            return BoardState.CORRUPT, None
        boot, policy, state = words[2], None, BoardState.ABSENT
        try:
            policy = _active(words)
        except ValueError:
            state = BoardState.CORRUPT
        finally:
            words.close()
        if policy is not None:
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if boot != boot_id() or now >= policy.deadline_boottime_ns:
                state = BoardState.EXPIRED
            else:
                state = BoardState.OK if policy.pack_hash == self._pack_hash else BoardState.PACK
        return state, policy

    def policy(self) -> BoardPolicy | None:
        """The policy on the board, expired or not."""
        return self._read()[1]

    def state(self) -> str:
        """As the core's."""
        return self._read()[0].name.lower()

    def by_prompt(self) -> bool:
        """Whether levels are chosen by prompts."""
        state, policy = self._read()
        if policy is None or state is not BoardState.OK or policy.paused:
            return False
        if policy.prompt is None or not policy.prompt.weights:
            return False
        return round(policy.prompt.share * 2.0**32) > 0

    def shares_by_prompt(
        self, text: bytes, tenant: bytes = b"", task: bytes = b""
    ) -> tuple[float, ...] | None:
        """As the core's."""
        policy = self._read()[1]
        if policy is None or policy.prompt is None or not self.by_prompt():
            return None
        prices = policy.prices_of(tenant, task)
        scorer = scorer_of(self._path.parent, policy.prompt, len(policy.shares))
        return None if scorer is None or prices is None else shares_by_prompt(prices, scorer, text)

    def choose(
        self, sequence: int, tenant: bytes = b"", task: bytes = b"", text: bytes | None = None
    ) -> Choice:
        """The level of one request."""
        texts = None if text is None else [text]
        return self.choose_many(sequence, 1, [(tenant, task)], texts)[0]

    def choose_many(
        self,
        first_sequence: int,
        count: int,
        names: Sequence[tuple[bytes, bytes]] | None = None,
        texts: Sequence[bytes] | None = None,
    ) -> list[Choice]:
        """The levels of a batch; names: tenant and task of each request, texts: its prompt."""
        state, policy = self._read()
        carbon = (math.nan, 1.0, 0.0)
        if policy is not None:
            carbon = (policy.intensity_g_per_kwh, policy.pue, policy.embodied_g_per_s)
        if policy is None or state is not BoardState.OK:
            return [Choice(0, int(Flag.FALLBACK), 0, 0, *carbon, int(state))] * count
        prompts: Sequence[bytes | None] = [None] * count if texts is None else texts
        asked = zip(names or [(b"", b"")] * count, prompts, strict=True)
        return [
            Choice(level, flags, policy.version, policy.seed, *carbon, int(state))
            for level, flags in self._drawn(policy, first_sequence, list(asked))
        ]

    def _drawn(
        self,
        policy: BoardPolicy,
        first: int,
        asked: Sequence[tuple[tuple[bytes, bytes], bytes | None]],
    ) -> Iterator[tuple[int, int]]:
        key, prompt, scorer = fold_key(policy.seed, *self._stub), policy.prompt, None
        if self.by_prompt() and prompt is not None:
            scorer = scorer_of(self._path.parent, prompt, len(policy.shares))
        for sequence, (names, text) in enumerate(asked, first):
            drawn = {stream: int(draws(key, sequence, 1, stream)[0]) for stream in Stream}

            prices = policy.prices_of(*names)
            by_prompt = (
                prompt is not None
                and prices is not None
                and (text is not None or not prompt.weights)
                and drawn[Stream.PROMPT] < round(prompt.share * 2.0**32)
            )
            if policy.paused:
                yield 0, int(Flag.PAUSED)
            elif drawn[Stream.CONTROL] < round(policy.control_share * 2.0**32):
                yield 0, int(Flag.CONTROL)
            elif drawn[Stream.CANARY] >= round(policy.canary_share * 2.0**32):
                yield 0, int(Flag.HELD_BACK)
            elif by_prompt and scorer is not None:
                assert prices is not None  # for types
                assert text is not None
                level = level_by_prompt(prices, scorer, text, drawn[Stream.POINT])
                yield level, int(Flag.PROMPT)
            else:
                upper = thresholds(policy.shares_of(*names))
                level = next(i for i, bound in enumerate(upper) if drawn[Stream.LEVEL] < int(bound))
                yield level, int(Flag.UNSCORED) if by_prompt else 0
