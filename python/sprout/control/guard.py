# SPDX-License-Identifier: Apache-2.0
"""The guard as it runs: counts what went wrong since it began to look, and judges it at each look.

Truncation comes from outcomes, by arm: control and held-back requests are L0's, drawn by the same
dice. Feedback comes from clients, and a receipt tells its level, not its arm: so it is compared by
level, requests at a shorter level with those at L0. Both are compared within a policy version,
where a fair draw is all that tells them apart. Feedback is not where prompts choose their level:
there the level tells what was asked. Requests under a policy that was not applied (shadow, a block
of L0, a pause) are nobody's.

It begins anew every `window_hours`, so that a change for the worse is not hidden by months of good
answers, and when an operator resumes. The counts live in memory; after a restart they are made
again from the store.
"""

from collections import Counter
from collections.abc import Callable, Mapping

from sprout.config import GuardConfig
from sprout.control.inbox import OURS
from sprout.control.notes import Note, notes
from sprout.control.rows import FEEDBACK_KINDS
from sprout.control.store import Store
from sprout.proof.guard import Tally, Verdict, judge

SETTING = "guard"
PREFIX = "guard: "  # of the reason of its pauses
TRUNCATION = "truncation"  # as outcomes tell it
REPORTED = tuple(kind for kind in FEEDBACK_KINDS if kind != "thumbs_up")
L0_ARMS = ("control", "held_back")
NOT_DRAWN = ("pinned", "off", "fallback", "paused", *OURS)
HOUR_S = 3600.0

Requests = Counter[tuple[int, str, int]]  # by (policy version, arm, level)
Said = Counter[tuple[int, str, int, str]]  # … and kind


class Guard:
    """Not safe to call from several threads at once, but for `restart`."""

    def __init__(self, config: GuardConfig, store: Store, wall: Callable[[], float]) -> None:
        self._config, self._store, self._wall = config, store, wall
        stored = store.setting(SETTING)
        self._restart = stored is None
        self._clear(*(stored or (0, 0, wall())))
        self.verdicts: tuple[Verdict, ...] = ()

    def _clear(self, outcome: int, feedback: int, since: float) -> None:
        self._from = (outcome, feedback, since)
        self._outcome, self._feedback = outcome, feedback
        self._requests: Requests = Counter()
        self._cut: Requests = Counter()
        self._said: Said = Counter()
        self._notes: dict[int, Note] = {}

    def restart(self) -> None:
        """Forget what was seen, at the next look: an operator resumed."""
        self._restart = True

    def look(self) -> str | None:
        """Why the policy must be rolled back; None: no reason. ControlError: the store failed."""
        if not self._config.enabled:
            return None
        outcome, feedback = self._store.last_ids()
        old = self._wall() - self._from[2] >= self._config.window_hours * HOUR_S
        if self._restart or old or outcome < self._outcome:
            self._clear(outcome, feedback, self._wall())
            self._store.set_setting(SETTING, list(self._from))
            self._restart = False
        for version, arm, level, count, cut in self._store.truncations(self._outcome, outcome):
            self._requests[version, arm, level] += count
            self._cut[version, arm, level] += cut
        self._outcome = outcome
        for version, arm, level, kind, count in self._store.feedback_counts(
            self._feedback, feedback
        ):
            self._said[version, arm, level, kind] += count
        self._feedback = feedback
        self._know({version for version, _, _ in self._requests} - {0})
        pairs = tallies(self._requests, self._cut, self._said, self._notes)
        self.verdicts = judge(pairs, bound=self._config.bound, alpha=self._config.alpha)
        return next((sentence(v, self._config) for v in self.verdicts if v.worse), None)

    def _know(self, versions: set[int]) -> None:
        """Policies are stored behind their publication: those not found are asked for again."""
        missing = sorted(versions - self._notes.keys())
        if missing:
            self._notes.update(notes(self._store.policy_messages(missing)))


def tallies(
    requests: Requests, cut: Requests, said: Said, known: Mapping[int, Note]
) -> dict[str, tuple[Tally, Tally]]:
    """By kind: (policy, L0) of what was drawn under policies that were applied."""
    applied = {v for v, made in known.items() if made.standing == "policy"}
    drawn = {
        key: count
        for key, count in requests.items()
        if key[0] in applied and key[1] not in NOT_DRAWN
    }
    complaints: Said = Counter()
    for (version, arm, level, kind), count in said.items():
        if arm not in NOT_DRAWN:
            complaints[version, "", level, kind] += count
    at_l0 = _strata(drawn, cut, lambda key: key[1] in L0_ARMS)
    found = {TRUNCATION: _matched(at_l0)}
    fair = {key: count for key, count in drawn.items() if known[key[0]].prompt_share == 0}
    for kind in REPORTED:
        strata = _strata(fair, Counter(), lambda key: key[2] == 0)
        for (version, _, level, what), count in complaints.items():
            if what == kind and version in strata:
                strata[version][level == 0][1] += count
        found[kind] = _matched(strata)
    return found


def _strata(
    drawn: Mapping[tuple[int, str, int], int],
    wrong: Requests,
    l0: Callable[[tuple[int, str, int]], bool],
) -> dict[int, tuple[list[int], list[int]]]:
    """By policy version: ([requests, of them wrong] of the policy, the same of L0)."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for key, count in drawn.items():
        side = found.setdefault(key[0], ([0, 0], [0, 0]))[l0(key)]
        side[0] += count
        side[1] += wrong[key]
    return found


def _matched(strata: Mapping[int, tuple[list[int], list[int]]]) -> tuple[Tally, Tally]:
    """Both sides with as many requests of each policy version as the smaller side has of it.

    Within a version a fair draw tells the sides apart; over several, mix and complaints may both
    follow the hour of the day. A version with more complaints than requests is left out: they were
    repeated, or are of an earlier time.
    """
    requests, policy_wrong, l0_wrong = 0, 0.0, 0.0
    for policy, l0 in strata.values():
        both = min(policy[0], l0[0])
        if both == 0 or policy[1] > policy[0] or l0[1] > l0[0]:
            continue
        requests += both
        policy_wrong += policy[1] * both / policy[0]
        l0_wrong += l0[1] * both / l0[0]
    return Tally(requests, round(policy_wrong)), Tally(requests, round(l0_wrong))


def sentence(verdict: Verdict, config: GuardConfig) -> str:
    """For people: why it was rolled back."""
    policy, l0 = verdict.policy, verdict.l0
    return (
        f"{PREFIX}{verdict.kind} in {100 * policy.rate:.1f} % of {policy.requests} requests under "
        f"the policy, {100 * l0.rate:.1f} % of as many at L0; more than "
        f"{100 * config.bound:g} points worse (false alarm at most {config.alpha:g})"
    )
