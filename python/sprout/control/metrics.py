# SPDX-License-Identifier: Apache-2.0
"""The decision, for Prometheus: docs/metrics.md describes each metric, and a test compares.

What the control plane holds anyway is read when it is scraped; what only happens is counted as it
happens. Every label has a bounded set of values.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from sprout import __version__
from sprout.control.loop import Loop
from sprout.control.overview import Overview
from sprout.control.quality import Quality
from sprout.control.store import Store
from sprout.proof.capacity import Freed
from sprout.proof.interval import Absent
from sprout.v1 import control_pb2 as pb

SCRAPE_TIMEOUT_S = 5.0
# Kinds of reasons for "degraded" that have a series of their own; any other is "other".
REASONS = (
    *("intensity", "feed", "stale", "fallback", "history", "profile", "infeasible", "solver"),
    *("poll", "loop", "pause", "override", "objective", "pin", "schedule", "policy", "audit"),
    "drift",
    "evaluations",
    *(
        "prune",
        "guard",
        "blocks",
        "bank",
        "budget",
        "capacity",
        "engine-changed",
        "engine-unwatched",
        "minima",
        "classes",
        "prompt",
        "other",
    ),
)


def _word(name: str) -> str:
    """FACTOR_TYPE_DIRECT: direct"""
    return name.rpartition("_")[2].lower()


ENDINGS = {number: _word(pb.Ending.Name(number)) for number in pb.Ending.values()}


class Counted:
    """What happens, and leaves no other trace."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.duplicates = Counter(
            "sprout_outcome_duplicates",
            "Outcomes that were reported again and dropped.",
            registry=registry,
        )
        self.refused = Counter(
            "sprout_reports_refused",
            "Reports of outcomes that were not taken.",
            ["reason"],
            registry=registry,
        )
        self.feedback = Counter(
            "sprout_feedback",
            "How people took the answers, as it was reported.",
            ["kind"],
            registry=registry,
        )
        self.store_s = Histogram(
            "sprout_store_seconds",
            "Time that the store took.",
            ["operation"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0),
            registry=registry,
        )


@dataclass(frozen=True)
class _Moment:
    """What is true on the event loop's thread when it is scraped."""

    policy: pb.Policy | None
    policy_age_s: float
    intensity_age_s: float | None
    reasons: frozenset[str]
    paused: bool
    pinned: bool
    published: dict[str, int]  # policies by trigger
    watchers: dict[str, int]  # by stream
    nodes: list[pb.NodeStatus]  # heard of within a minute
    quality: Quality | None  # what q rests on; None: priors


class Decisions(Collector):
    """Scraped from any thread but the event loop's."""

    def __init__(
        self, loop: Loop, store: Store, overview: Overview, events: asyncio.AbstractEventLoop
    ) -> None:
        self._loop, self._store, self._overview, self._events = loop, store, overview, events

    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would scrape once to learn the names."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Raises TimeoutError where the event loop does not answer, ControlError where the store
        fails: a scrape that fails is an alert by itself."""
        asked = asyncio.run_coroutine_threadsafe(self._look(), self._events)
        try:
            moment = asked.result(SCRAPE_TIMEOUT_S)
        except TimeoutError:
            asked.cancel()
            raise
        yield from _process(self._loop.started_at)
        yield from _policy(moment)
        yield from _quality(moment)
        yield from _health(moment)
        yield from self._outcomes()
        yield from _capacity(self._loop.capacity.found)

    async def _look(self) -> _Moment:
        loop, overview = self._loop, self._overview
        return _Moment(
            policy=loop.publisher.policy(),
            policy_age_s=loop.publisher.since_published_s(),
            intensity_age_s=loop.intensity_age_s(),
            reasons=frozenset(loop.reasons()),
            paused=loop.pause_reason is not None,
            pinned=loop.pinned() is not None,
            published=dict(loop.publisher.published),
            watchers={"policy": loop.publisher.watchers, "status": overview.watchers},
            nodes=overview.heard_within(60.0),
            quality=loop.evaluations.quality,
        )

    def _outcomes(self) -> Iterator[Metric]:
        outcomes = CounterMetricFamily(
            "sprout_outcomes", "Finished requests.", labels=["arm", "ending"]
        )
        for arm, ending, count in self._store.endings():
            outcomes.add_metric([arm, ENDINGS.get(ending, "other")], count)
        yield outcomes
        totals = self._store.totals()
        columns = {
            "sprout_outcomes_unmetered": ("unmetered", "Requests whose energy is not known."),
            "sprout_energy_joules": ("energy_joules", "Energy that requests used."),
            "sprout_output_tokens": ("output_tokens", "Tokens that were generated."),
        }
        for name, (column, text) in columns.items():
            family = CounterMetricFamily(name, text, labels=["arm"])
            for row in totals:
                family.add_metric([row["arm"]], row[column])
            yield family
        carbon = CounterMetricFamily(
            "sprout_carbon_grams",
            "Operational and embodied carbon of requests.",
            labels=["arm", "series"],
        )
        for row in totals:
            for series, carbon_g in sorted(row["carbon_g_by_series"].items()):
                carbon.add_metric([row["arm"], series], carbon_g)
        yield carbon
        estimated = GaugeMetricFamily(
            "sprout_energy_estimated", "1: at least some of it is from a model.", labels=["arm"]
        )
        for row in totals:
            estimated.add_metric([row["arm"]], row["energy_estimated"])
        yield estimated


def registry_of(
    loop: Loop, store: Store, overview: Overview, events: asyncio.AbstractEventLoop
) -> tuple[CollectorRegistry, Counted]:
    """A registry of this control plane alone, and what its services count into."""
    registry = CollectorRegistry(auto_describe=False)
    counted = Counted(registry)
    registry.register(Decisions(loop, store, overview, events))
    ProcessCollector(registry=registry)
    return registry, counted


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Without labels; without a sample where the value is not known."""
    family = GaugeMetricFamily(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _by(name: str, text: str, label: str, values: Iterable[tuple[str, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=[label])
    for key, value in values:
        family.add_metric([key], value)
    return family


def _process(started_at: float) -> Iterator[Metric]:
    yield _by("sprout_build_info", "The version that runs.", "version", [(__version__, 1)])
    yield _gauge("sprout_start_time_seconds", "Start of the control plane, since 1970.", started_at)


def _policy(moment: _Moment) -> Iterator[Metric]:
    """The policy in force; of an absent one, no samples."""
    policy = moment.policy or pb.Policy()
    why, known = policy.explanation, moment.policy is not None
    lit = known and policy.HasField("intensity")
    profile = list(why.profile)

    def of(value: float, when: bool = known) -> float | None:
        return value if when else None

    info = GaugeMetricFamily(
        "sprout_intensity_info",
        "What kind of value the decision was made on.",
        labels=["zone", "source", "factor_type", "signal", "estimated", "override"],
    )
    if lit:
        k = policy.intensity
        kind = (_word(pb.FactorType.Name(k.factor_type)), _word(pb.Signal.Name(k.signal)))
        flags = (str(k.estimated).lower(), str(k.override).lower())
        info.add_metric([k.zone, k.source, *kind, *flags], 1)
    yield info
    yield _gauge(
        "sprout_intensity_grams_per_kwh",
        "Carbon intensity that the decision was made on.",
        of(policy.intensity.g_per_kwh, lit),
    )
    yield _gauge(
        "sprout_intensity_age_seconds",
        "Age of the newest value of the carbon source.",
        moment.intensity_age_s,
    )
    ranged = known and why.k0_max_g_per_kwh > 0
    ends = (("low", why.k0_min_g_per_kwh), ("high", why.k0_max_g_per_kwh)) if ranged else ()
    yield _by(
        "sprout_intensity_range_grams_per_kwh", "The range that it is compared with.", "end", ends
    )
    ratios = {
        "sprout_intensity_position_ratio": ("Where in the range it stands.", why.fraction),
        "sprout_quality_floor_ratio": ("Least preference, of L0's, of a mix.", why.floor),
        "sprout_expected_preference_ratio": (
            "Preference, of L0's, expected of the mix.",
            why.expected_preference,
        ),
        "sprout_xi_ratio": ("The most preference that may be given up.", why.xi),
        "sprout_control_share_ratio": ("Held at L0 for comparison.", policy.control_share),
        "sprout_canary_share_ratio": ("Under the policy.", policy.canary_share),
    }
    for name, (text, value) in ratios.items():
        yield _gauge(name, text, of(value))
    priced = known and why.HasField("quality_price_g_per_point")
    yield _gauge(
        "sprout_quality_price_grams_per_point",
        "Grams per request that the last hundredth of the floor costs.",
        of(why.quality_price_g_per_point, priced),
    )
    expected = (("policy", why.expected_g_per_request), ("L0", why.expected_l0_g_per_request))
    prompt, chosen = policy.prompt, policy.HasField("prompt")
    by_prompt = (("prompt", prompt.expected_g_per_request),) if chosen else ()
    grams = (*expected, *by_prompt) if lit else ()
    yield _by("sprout_expected_request_grams", "Expected carbon of a request.", "mix", grams)
    yield _gauge(
        "sprout_prompt_share_ratio",
        "Of the requests whose mix has prices: whose prompt chooses their level.",
        of(prompt.share),
    )
    yield _gauge(
        "sprout_prompt_expected_preference_ratio",
        "Preference, of L0's, predicted of those without a mix of their own.",
        of(prompt.expected_preference, chosen),
    )
    yield _by(
        "sprout_share_ratio",
        "Share of the requests under the policy that get a level.",
        "level",
        ((s.level, s.share) for s in policy.shares),
    )
    columns = {
        "sprout_profile_outcomes": ("Outcomes behind e and p.", "outcomes"),
        "sprout_profile_request_joules": ("Energy of a request (e).", "energy_joules"),
        "sprout_profile_request_seconds": ("Device time of a request (p).", "device_seconds"),
        "sprout_profile_preference": ("Preference (q).", "preference"),
        "sprout_profile_output_tokens": ("Mean tokens of an answer.", "mean_output_tokens"),
    }
    for name, (text, column) in columns.items():
        yield _by(name, text, "level", ((p.level, getattr(p, column)) for p in profile))
    yield _by(
        "sprout_profile_measured",
        "1: e and p are measured, 0: they rest on a prior.",
        "level",
        ((p.level, float(p.energy_basis == "measured")) for p in profile),
    )
    yield _gauge("sprout_policy_epoch", "First half of the policy's version.", of(policy.epoch))
    yield _gauge("sprout_policy_counter", "Second half of it.", of(policy.counter))
    yield _gauge("sprout_policy_age_seconds", "Since it was published.", of(moment.policy_age_s))
    yield _gauge(
        "sprout_policy_expires_seconds",
        "What it has left to live unless it is renewed.",
        of(policy.ttl.ToNanoseconds() / 1e9),
    )
    published = CounterMetricFamily(
        "sprout_policies", "Policies published, by what moved.", labels=["trigger"]
    )
    for trigger, count in sorted(moment.published.items()):
        published.add_metric([trigger], count)
    yield published


def _quality(moment: _Moment) -> Iterator[Metric]:
    """What q rests on and how sure it is; without an evaluation, no samples."""
    policy = moment.policy or pb.Policy()
    why, found = policy.explanation, moment.quality
    yield _by(
        "sprout_profile_preference_error",
        "Standard error of an evaluated preference (q).",
        "level",
        ((p.level, p.preference_se) for p in why.profile if p.HasField("preference_se")),
    )
    yield _gauge(
        "sprout_evaluation_age_seconds",
        "Since the evaluation that q rests on ended.",
        None if found is None else max(0.0, time.time() - found.finished_at),
    )
    yield _gauge(
        "sprout_evaluation_prompts",
        "Prompts that were judged in it.",
        None if found is None else found.classes[""].judged,
    )
    yield _gauge(
        "sprout_floor_z",
        "Standard deviations that the floor holds with.",
        why.confidence.z if why.HasField("confidence") else None,
    )
    mixes = GaugeMetricFamily(
        "sprout_mix_share_ratio",
        "Share of the requests of a tenant or task class that get a level.",
        labels=["tenant", "task", "level"],
    )
    traffic = GaugeMetricFamily(
        "sprout_mix_traffic_ratio",
        "Share of the requests under the policy that are of a tenant or task class.",
        labels=["tenant", "task"],
    )
    prompt = GaugeMetricFamily(
        "sprout_mix_prompt_expected_preference_ratio",
        "Preference, of its own L0's, predicted where its prompts choose.",
        labels=["tenant", "task"],
    )
    for mix in policy.mixes:
        traffic.add_metric([mix.tenant, mix.task], mix.traffic_share)
        if mix.HasField("prompt"):
            prompt.add_metric([mix.tenant, mix.task], mix.prompt.expected_preference)
        for share in mix.shares:
            mixes.add_metric([mix.tenant, mix.task, share.level], share.share)
    yield mixes
    yield traffic
    yield prompt


def _capacity(found: Freed | Absent) -> Iterator[Metric]:
    """For whoever sizes the fleet; without samples where the comparison can't be made."""
    bounds: tuple[tuple[str, float], ...] = ()
    if isinstance(found, Freed):
        needed = found.ratio
        bounds = (("low", needed.low), ("estimate", needed.value), ("high", needed.high))
    yield _by(
        "sprout_capacity_needed_ratio",
        "Share of a fleet sized for L0 that serves the same requests at the same latency.",
        "bound",
        bounds,
    )


def _health(moment: _Moment) -> Iterator[Metric]:
    yield _gauge("sprout_degraded", "1: something is wrong, see the reasons.", bool(moment.reasons))
    kinds = {kind if kind in REASONS else "other" for kind in moment.reasons}
    yield _by(
        "sprout_degraded_reason",
        "1: this is wrong.",
        "kind",
        ((kind, float(kind in kinds)) for kind in REASONS),
    )
    yield _gauge("sprout_paused", "1: the kill switch is on, L0 everywhere.", moment.paused)
    yield _gauge("sprout_pinned", "1: a pin or the schedule makes the mix.", moment.pinned)
    yield _by("sprout_watchers", "Streams open now.", "stream", moment.watchers.items())
    nodes = moment.nodes
    yield _gauge("sprout_nodes", "Nodes that reported in the last minute.", len(moment.nodes))
    yield _gauge(
        "sprout_nodes_unmetered",
        "Nodes of which a meter stands still.",
        sum(bool(node.meter_problem) for node in nodes),
    )
    sums = {
        "sprout_node_active_requests": ("Requests in the engines now.", "active"),
        "sprout_node_spooled_outcomes": ("Outcomes that wait on nodes.", "spooled"),
        "sprout_node_dropped_outcomes": ("Outcomes that full spools dropped.", "dropped"),
    }
    for name, (text, column) in sums.items():
        yield _gauge(name, text, sum(getattr(node, column) for node in nodes))
