# SPDX-License-Identifier: Apache-2.0
"""What decisions rest on, as it was last looked at: feed, outcomes, evaluation, budget."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sprout.carbon import Feed, Intensity
from sprout.config import Config
from sprout.control.budget import Budget, Worth
from sprout.control.classes import Classes
from sprout.control.inputs import NO_RANGE, Group, Horizon, Prompts, priors
from sprout.control.live import Live
from sprout.control.predicted import Predicted, PredictorFile
from sprout.control.quality import Quality
from sprout.control.store import Store
from sprout.directives import Pack
from sprout.errors import ControlError
from sprout.optimize.floor import Range
from sprout.profile import LevelProfile

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Facts:
    intensity: Intensity | None
    within: Range
    profile: tuple[LevelProfile, ...]  # with the q of `quality`, where there is one
    reasons: dict[str, str]  # kind -> what is wrong with the above
    horizon: Horizon | None = None  # in the mode "bank"
    no_horizon: str = "not looked at yet"  # why there is none
    quality: Quality | None = None  # None: q is that of the priors
    groups: tuple[Group, ...] = ()
    predicted: Predicted | None = None  # None: no level is chosen by its prompt
    prompts: Prompts | None = None  # the same
    no_prompt: str = ""  # what is wrong with the predictor that is configured


class Look:
    """ConfigError where the priors don't fit the pack. For one thread at a time."""

    def __init__(
        self, config: Config, pack: Pack, store: Store, feed: Feed, wall: Callable[[], float]
    ) -> None:
        self._config, self._store, self._feed, self._wall = config, store, feed, wall
        self._priors = priors(config, pack.levels)
        self._live = Live(config, pack, self._priors)
        self._classes = Classes(config.control, pack)
        self._predictor = PredictorFile(config.control, pack)
        self._budget = Budget(config.control.bank, store, pack.hash)

    def first(self) -> Facts:
        """Before anything was looked at."""
        return Facts(None, NO_RANGE, self._priors, {})

    def again(self, last: Facts, found: Quality | None, mode: str) -> Facts:
        """Reads feed and store: in a thread of its own. What can't be read is as it was last.

        found: of the latest evaluation. mode: as in Objective.
        """
        profile, groups = last.profile, last.groups
        horizon, no_horizon = last.horizon, last.no_horizon
        reasons: dict[str, str] = {}
        with _failing(reasons, "profile", "outcomes can't be read", "the profile is not kept up"):
            profile, wrong = self._live.look(self._store, self._wall())
            reasons |= wrong
        if found is not None:
            profile = found.on(profile)
        with _failing(
            reasons,
            "classes",
            "outcomes by class can't be read",
            "classes and tenants are not kept up",
        ):
            groups = self._classes.look(
                self._store, found, self._live.attributed, profile, self._wall()
            )
        not_kept = "the quality budget is not kept up"
        with _failing(reasons, "budget", not_kept, not_kept):
            worth = Worth(profile, groups, self._config.control.class_against)
            horizon, no_horizon = self._ahead(worth, mode)
        seen = self._feed.last(), self._feed.range()
        predicted, prompts, no_prompt = self._by_prompt(last, groups, reasons)
        return Facts(
            *(*seen, profile, reasons, horizon, no_horizon, found, groups),
            predicted=predicted,
            prompts=prompts,
            no_prompt=no_prompt,
        )

    def _by_prompt(
        self, last: Facts, groups: tuple[Group, ...], reasons: dict[str, str]
    ) -> tuple[Predicted | None, Prompts | None, str]:
        """(predictor, what a plan has to know of it, what is wrong with the one configured)"""
        predicted, prompts, problem = last.predicted, last.prompts, last.no_prompt
        not_kept = "what prompts choose by is not kept up"
        with _failing(reasons, "prompt", not_kept, not_kept):
            predicted, prompts, problem = self._predictor.look(self._store, groups)
            if problem:
                reasons["prompt"] = f"no level is chosen by its prompt: {problem}"
        return predicted, prompts, problem

    def _ahead(self, worth: Worth, mode: str) -> tuple[Horizon | None, str]:
        """(what the mode "bank" looks ahead at, why it can't)"""
        if mode != "bank":
            self._budget.end()
            return None, "not looked at yet"
        return self._budget.look(self._feed, worth, self._wall())


@contextmanager
def _failing(reasons: dict[str, str], kind: str, unread: str, otherwise: str) -> Iterator[None]:
    """One input that fails must not stop the others, nor the policy: it is a reason.

    unread: said of a store that fails; otherwise: of anything else.
    """
    try:
        yield
    except ControlError as error:
        reasons[kind] = f"{unread}: {error}"
    except Exception as error:
        LOG.exception("%s", kind)
        reasons[kind] = f"{otherwise}: {type(error).__name__}"
