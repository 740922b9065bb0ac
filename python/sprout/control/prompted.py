# SPDX-License-Identifier: Apache-2.0
"""The last prices that were set, so that equal inputs set none again; and the weights that policies
name, for as long as a node may ask for them."""

import logging
from dataclasses import replace

from sprout.control import prices
from sprout.control.inputs import Inputs
from sprout.control.plan import Plan, PromptPlan
from sprout.control.predicted import Predicted
from sprout.control.quality import Judgments
from sprout.control.solved import same

LOG = logging.getLogger(__name__)

KEPT = 4  # weights: of the policy in force and of those before it, at most 3 MiB each


class Prompted:
    """For any thread: what is kept is replaced whole."""

    def __init__(self) -> None:
        self._last: tuple[Inputs, PromptPlan | None, str, str] | None = None

    @property
    def problem(self) -> str:
        """What went wrong with the last prices that were asked for; "": nothing."""
        return "" if self._last is None else self._last[3]

    def known(self, inputs: Inputs, made: Plan, problem: str = "") -> Plan | None:
        """The plan of these inputs with its part for prompts, where it takes no solver or was made;
        None: `solve` first. problem: why there is no predictor to decide with."""
        if inputs.prompts is None:
            return replace(made, no_prompt=problem)
        if why := prices.excluded(made):
            return replace(made, no_prompt=why)
        if self._last is None or not same(self._last[0], inputs):
            return None
        return replace(made, prompt=self._last[1], no_prompt=self._last[2])

    def solve(
        self, inputs: Inputs, made: Plan, known: Predicted, today: Judgments | None = None
    ) -> None:
        """known: the predictor that the inputs name; today: of the evaluation that they name."""
        try:
            self._last = (inputs, *prices.price(inputs, made, known, today), "")
        except Exception as error:  # the mix goes on, whatever a file holds
            LOG.exception("prices of prompts")
            what = f"prices of prompts can't be set: {type(error).__name__}"
            self._last = (inputs, None, what, what)


class Shelf:
    """Weights by their SHA-256. On the event loop's thread alone."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}  # in the order of their last publication

    def put(self, known: Predicted) -> None:
        """A policy names them."""
        self._kept.pop(known.weights_sha256, None)
        self._kept[known.weights_sha256] = known.weights
        while len(self._kept) > KEPT:
            del self._kept[next(iter(self._kept))]

    def get(self, sha256: str) -> bytes | None:
        return self._kept.get(sha256)
