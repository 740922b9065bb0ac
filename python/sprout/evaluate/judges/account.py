# SPDX-License-Identifier: Apache-2.0
"""What judging took and how it went: calls, tokens, joules, money, and what was unusable."""

import threading
from collections import Counter
from dataclasses import dataclass, field

from sprout.evaluate.judges.verdict import Reason, Spent, Verdict
from sprout.units import operational_g


@dataclass(frozen=True, slots=True)
class Rates:
    """As declared; 0: not known."""

    joules_per_token: float = 0.0  # of input and output alike
    price_per_1k_input: float = 0.0  # in the operator's currency
    price_per_1k_output: float = 0.0


@dataclass(frozen=True, slots=True)
class JudgeCost:
    calls: int
    uncounted_calls: int  # of them: tokens not known, so they are in no figure below
    cached: int
    input_tokens: int
    output_tokens: int
    joules: float | None  # None: not known
    carbon_g: float | None  # None: joules or intensity not known
    price: float | None  # None: no price is declared
    basis: str  # of joules and price, for people


# Each answer stands in each place as often, so who reads answers names a place half the time (1 / n
# of n). Beyond this share in at least so many comparisons, the place decides, not the answer.
PLACE_DECIDES = 0.9
LEAST_COMPARISONS = 40


@dataclass(frozen=True, slots=True)
class Position:
    """What the place in the order did, where the judge was asked.

    Without bias each of n places wins 1 / n of the time, for every answer stood in each as often
    (pairwise), or in one drawn at random (choice).
    """

    comparisons: int
    wins: tuple[float, ...]  # (places,) comparisons won; a tie is half for each of the two
    # Pairwise: pairs for which both orders were heard, and those of them that named one winner
    # (or a tie) both times.
    pairs: int = 0
    consistent: int = 0

    @property
    def first_wins(self) -> float | None:
        """P(the first that is shown wins); None: nothing was compared."""
        return self.wins[0] / self.comparisons if self.comparisons else None

    @property
    def bias(self) -> float | None:
        """How much more often the first wins than it would by its share."""
        first = self.first_wins
        return None if first is None else first - 1 / len(self.wins)

    @property
    def decides(self) -> bool:
        """The place in the order makes the verdict. Cancelled out, nothing would be left: every
        level as good as L0, at any number of judgments.
        """
        if self.comparisons < LEAST_COMPARISONS:
            return False
        return max(self.wins) >= PLACE_DECIDES * self.comparisons


@dataclass
class Account:
    """Any thread may call."""

    unusable: Counter[Reason] = field(default_factory=Counter)  # comparisons, or marks
    incomplete: int = 0  # questions that are left out, for a level of theirs could not be judged
    judged: int = 0  # questions
    identical: int = 0  # comparisons of equal texts: ties, unasked
    cached: int = 0
    _spent: Spent = field(default_factory=Spent)
    _wins: list[float] = field(default_factory=list)
    _comparisons: int = 0
    _pairs: int = 0
    _consistent: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def asked(self, verdict: Verdict, places: int, *, cached: bool = False) -> None:
        with self._lock:
            self._spent += verdict.spent
            self.cached += cached
            if verdict.unusable is not None:
                self.unusable[verdict.unusable] += 1
                return
            self._comparisons += 1
            self._wins.extend([0.0] * (places - len(self._wins)))
            for place in range(places):
                won = 1 / places if verdict.place is None else float(verdict.place == place)
                self._wins[place] += won

    def pair(self, *, consistent: bool) -> None:
        """Both orders of a pair were heard."""
        with self._lock:
            self._pairs += 1
            self._consistent += consistent

    def unasked(self, why: Reason | None) -> None:
        """A comparison that nobody was asked for; None: its texts are equal."""
        with self._lock:
            if why is None:
                self.identical += 1
            else:
                self.unusable[why] += 1

    def done(self, *, complete: bool) -> None:
        """With one question."""
        with self._lock:
            self.judged += complete
            self.incomplete += not complete

    @property
    def spent(self) -> Spent:
        with self._lock:
            return self._spent

    @property
    def position(self) -> Position:
        with self._lock:
            return Position(self._comparisons, tuple(self._wins), self._pairs, self._consistent)

    def cost(
        self, rates: Rates, *, intensity_g_per_kwh: float | None = None, pue: float = 1.0
    ) -> JudgeCost:
        """intensity_g_per_kwh: where the judge runs; None: not known.

        Joules of receipts where the judge gives them, the declared ones for all other tokens.
        """
        with self._lock:
            spent, cached = self._spent, self.cached
        tokens = spent.input_tokens + spent.output_tokens
        declared = tokens - spent.receipt_tokens
        joules: float | None = spent.receipt_joules + declared * rates.joules_per_token
        if declared and not rates.joules_per_token:
            joules = None
        priced = rates.price_per_1k_input > 0 or rates.price_per_1k_output > 0
        price = (
            spent.input_tokens * rates.price_per_1k_input
            + spent.output_tokens * rates.price_per_1k_output
        ) / 1000
        known = joules is not None and intensity_g_per_kwh is not None
        return JudgeCost(
            calls=spent.calls,
            uncounted_calls=spent.uncounted_calls,
            cached=cached,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
            joules=joules,
            carbon_g=operational_g(joules or 0.0, intensity_g_per_kwh or 0.0, pue)
            if known
            else None,
            price=price if priced else None,
            basis=_basis(spent, declared, rates, priced=priced),
        )


def _basis(spent: Spent, declared: int, rates: Rates, *, priced: bool) -> str:
    said = []
    if spent.receipt_tokens:
        said.append("joules of receipts")
    if declared:
        per_token = rates.joules_per_token
        said.append(
            f"{per_token:g} J per token as declared"
            if per_token
            else "joules not known (evaluate.judge.joules_per_token)"
        )
    if not priced and spent.calls:
        said.append("price not known (evaluate.judge.price_per_1k_input, …_output)")
    if spent.uncounted_calls:
        said.append(f"without {spent.uncounted_calls} calls whose tokens are not known")
    return "; ".join(said)
