# SPDX-License-Identifier: Apache-2.0
"""Metrics over real HTTP, and docs/metrics.md against what is served."""

import asyncio
import re
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from control_plane import (
    WAIT_S,
    configure,
    first,
    make_authority,
    running,
    stub_of,
    tls_of,
)
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from some_evaluation import evaluation

from sprout.config import CarbonConfig, TenantConfig
from sprout.control import feedback, metrics
from sprout.control.grid import DRILL, FORGOTTEN, UNKNOWN
from sprout.control.inbox import FLAGS
from sprout.control.run import run
from sprout.errors import ConfigError, StackError
from sprout.policy_version import version
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

ROOT = Path(__file__).parents[2]
Stub = control_pb2_grpc.ControlStub
# What a label may say, whatever is reported; patterns.
ARM = "|".join(("L[0-7]", *FLAGS))
TRIGGERS = (
    "start|time|intensity|range|profile|degraded|pause|resume|override|objective|pin|unpin|schedule"
    "|shadow|block|guard|evaluation|mixes|prompts"
)
LABELS = {
    "arm": ARM,
    "ending": "|".join(metrics.ENDINGS.values()),
    "end": "low|high",
    "estimated": "true|false",
    "factor_type": "direct|lifecycle",
    "kind": "|".join((*metrics.REASONS, *feedback.KINDS.values())),
    "le": r"[\d.]+|\+Inf",
    "level": "L[0-7]",
    "mix": "policy|L0|prompt",
    "operation": "add_outcomes",
    "override": "true|false",
    "reason": "invalid|store",
    # Those of the configuration, or why there is none.
    "series": f"EXAMPLE constant, lifecycle, average|{FORGOTTEN}|{UNKNOWN}|{DRILL}",
    "signal": "average|marginal",
    "source": "constant",  # those of the configuration
    "stream": "policy|status",
    "task": "",  # or a class of an evaluation
    "tenant": "acme",  # those of the configuration
    "trigger": TRIGGERS,
    "version": r"\d+\.\d+\.\d+.*",
    "zone": "EXAMPLE",
}


def scrape(address: str) -> dict[str, Metric]:
    answer = httpx.get(f"http://{address}/metrics", timeout=WAIT_S)
    answer.raise_for_status()
    return {family.name: family for family in text_string_to_metric_families(answer.text)}


def value(families: dict[str, Metric], sample: str, **labels: str) -> float:
    for family in families.values():
        for each in family.samples:
            if each.name == sample and each.labels == labels:
                return each.value
    raise KeyError(f"{sample} {labels}")


def metrics_of(stub: Stub) -> str:
    return stub.GetStatus(pb.GetStatusRequest(), timeout=WAIT_S).metrics_address


def outcome(ticket: int, **fields: Any) -> pb.Outcome:
    values: dict[str, Any] = {
        "segment_uid": 9,
        "ticket": ticket,
        "ending": pb.ENDING_DELIVERED,
        "energy_joules": 5.0,
        "carbon_g": 0.25,
        "output_tokens": 20,
    }
    return pb.Outcome(**{**values, **fields})


def report(stub: Stub, *outcomes: pb.Outcome, node: str = "node-a", **status: Any) -> None:
    request = pb.ReportOutcomesRequest(node=node, outcomes=outcomes)
    request.node_status.CopyFrom(pb.NodeStatus(**status))
    stub.ReportOutcomes(request, timeout=WAIT_S)


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stub, str]]:
    """(stub, address of the metrics) of a control plane that every metric has a sample of."""
    state = tmp_path_factory.mktemp("state")
    config = configure(state, tenants={"acme": TenantConfig(minimum=0.9)})
    with running(config) as address, stub_of(address) as stub:
        first(stub)
        found = pb.ReportEvaluationRequest(evaluation=evaluation())
        stub.ReportEvaluation(found, timeout=WAIT_S)
        ending = {"ending": pb.ENDING_FAILED, "control": True, "energy_estimated": True}
        gap = outcome(4, level=1, unmetered=True)
        report(
            stub, outcome(1), outcome(2, level=1), outcome(3, **ending), gap, active=2, spooled=5
        )
        report(stub, outcome(1), node="node-b", active=1, dropped=4, meter_problem="a GPU is lost")
        with pytest.raises(grpc.RpcError):
            report(stub, outcome(0))
        retry = pb.Feedback(kind=pb.FEEDBACK_KIND_RETRY, count=3)
        stub.ReportFeedback(pb.ReportFeedbackRequest(feedback=[retry]), timeout=WAIT_S)
        yield stub, metrics_of(stub)


# --- docs ----------------------------------------------------------------------------------------


def documented() -> dict[str, tuple[str, set[str]]]:
    """Metric -> (type, labels), of the tables of the page."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", page, re.M)
    assert len(rows) == len({name for name, _, _ in rows})
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def test_the_page_is_what_is_served(busy: tuple[Stub, str]) -> None:
    served: dict[str, tuple[str, set[str]]] = {}
    for family in scrape(busy[1]).values():
        if family.name.endswith("_created"):
            continue  # when a counter began: the client adds it to each
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        served[name] = (family.type, labels)
    # These need a history of intensities, requests in both arms, a predictor: see other tests.
    page = documented()
    page["sprout_intensity_range_grams_per_kwh"] = ("gauge", set())
    page["sprout_capacity_needed_ratio"] = ("gauge", set())
    page["sprout_mix_prompt_expected_preference_ratio"] = ("gauge", set())
    assert served == page


def test_names_follow_the_conventions() -> None:
    for name, (kind, _) in documented().items():
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search(r"_(kwh|ms|milli\w*|kilo\w*|percent)\b", name) or name.endswith(
            "_grams_per_kwh"
        ), name


def test_every_label_is_bounded(busy: tuple[Stub, str]) -> None:
    stub, address = busy
    odd = outcome(90, level=7, level_name="x" * 200, task="y" * 60, policy_version=2**64 - 1)
    report(stub, odd, node="z" * 253, meter="w" * 200, counters={"v" * 64: 1})
    for family in scrape(address).values():
        for sample in family.samples:
            for label, text in sample.labels.items():
                assert re.fullmatch(LABELS[label], text), f"{sample.name} {label}={text}"


# --- values --------------------------------------------------------------------------------------


def test_the_decision_is_the_policy_s(busy: tuple[Stub, str]) -> None:
    stub, address = busy
    policy = stub.GetPolicy(pb.GetPolicyRequest(), timeout=WAIT_S)
    found = scrape(address)
    why = policy.explanation
    assert value(found, "sprout_intensity_grams_per_kwh") == 300
    assert value(found, "sprout_quality_floor_ratio") == why.floor
    assert value(found, "sprout_expected_preference_ratio") == why.expected_preference
    price = value(found, "sprout_quality_price_grams_per_point")
    assert price == why.quality_price_g_per_point > 0
    for share in policy.shares:
        assert value(found, "sprout_share_ratio", level=share.level) == share.share
    for level in why.profile:
        joules = value(found, "sprout_profile_request_joules", level=level.level)
        assert joules == level.energy_joules
    grams = value(found, "sprout_expected_request_grams", mix="policy")
    assert grams == why.expected_g_per_request
    epoch, counter = (value(found, f"sprout_policy_{half}") for half in ("epoch", "counter"))
    assert int(epoch) << 32 | int(counter) == version(policy)
    assert 0 < value(found, "sprout_policy_expires_seconds") <= 900
    assert value(found, "sprout_policy_age_seconds") >= 0
    assert value(found, "sprout_policies_total", trigger="start") == 1
    assert value(found, "sprout_degraded") == 0
    labels = {"zone": "EXAMPLE", "source": "constant", "factor_type": "lifecycle"}
    flags = {"signal": "average", "estimated": "true", "override": "false"}
    assert value(found, "sprout_intensity_info", **labels, **flags) == 1


def test_what_was_reported_is_counted(busy: tuple[Stub, str]) -> None:
    found = scrape(busy[1])
    assert value(found, "sprout_outcomes_total", arm="L0", ending="delivered") == 1
    assert value(found, "sprout_outcomes_total", arm="control", ending="failed") == 1
    assert value(found, "sprout_outcomes_total", arm="L1", ending="delivered") == 2
    assert value(found, "sprout_outcomes_unmetered_total", arm="L1") == 1
    assert value(found, "sprout_energy_joules_total", arm="L1") == 5
    assert value(found, "sprout_carbon_grams_total", arm="L1", series=FORGOTTEN) == 0.25
    assert value(found, "sprout_output_tokens_total", arm="control") == 20
    assert value(found, "sprout_energy_estimated", arm="control") == 1
    assert value(found, "sprout_energy_estimated", arm="L1") == 0
    assert value(found, "sprout_outcome_duplicates_total") == 1
    assert value(found, "sprout_reports_refused_total", reason="invalid") == 1
    assert value(found, "sprout_feedback_total", kind="retry") == 3
    assert value(found, "sprout_node_spooled_outcomes") == 5
    assert value(found, "sprout_node_dropped_outcomes") == 4
    assert value(found, "sprout_node_active_requests") == 3
    assert value(found, "sprout_store_seconds_count", operation="add_outcomes") >= 2
    assert value(found, "sprout_nodes") >= 2
    assert value(found, "sprout_nodes_unmetered") == 1


def test_totals_go_on_after_a_restart(tmp_path: Path) -> None:
    for tickets in (1, 2):
        with running(configure(tmp_path)) as address, stub_of(address) as stub:
            first(stub)
            report(stub, *(outcome(i + 1) for i in range(tickets)))
            found = scrape(metrics_of(stub))
            assert value(found, "sprout_outcomes_total", arm="L0", ending="delivered") == tickets
            assert value(found, "sprout_energy_joules_total", arm="L0") == 5 * tickets


def test_what_is_not_known_has_no_sample(tmp_path: Path) -> None:
    with running(configure(tmp_path, CarbonConfig())) as address, stub_of(address) as stub:
        first(stub)
        found = scrape(metrics_of(stub))
        for name in ("grams_per_kwh", "age_seconds", "info"):
            assert found[f"sprout_intensity_{name}"].samples == []
        assert found["sprout_expected_request_grams"].samples == []
        assert found["sprout_quality_price_grams_per_point"].samples == []
        assert value(found, "sprout_degraded") == 1
        assert value(found, "sprout_degraded_reason", kind="intensity") == 1
        assert value(found, "sprout_degraded_reason", kind="stale") == 0


def test_wishes_and_watchers_show(tmp_path: Path) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        watch = stub.WatchPolicy(pb.WatchPolicyRequest(), timeout=WAIT_S)
        next(watch)
        where = metrics_of(stub)
        assert value(scrape(where), "sprout_watchers", stream="policy") == 1
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        mix = [pb.LevelShare(level="L2", share=1)]
        stub.Pin(pb.PinRequest(shares=mix, reason="r"), timeout=WAIT_S)
        found = scrape(where)
        assert (value(found, "sprout_paused"), value(found, "sprout_pinned")) == (1, 1)
        assert value(found, "sprout_share_ratio", level="L0") == 1
        assert value(found, "sprout_policies_total", trigger="pause") == 1
        watch.cancel()


def test_a_reason_of_an_unknown_kind_is_other(tmp_path: Path) -> None:
    moment = metrics._Moment(
        policy=None,
        policy_age_s=0.0,
        intensity_age_s=None,
        reasons=frozenset({"stale", "drift", "evaluations", "brand new"}),
        paused=False,
        pinned=False,
        published={},
        watchers={},
        nodes=[],
        quality=None,
    )
    families = {family.name: family for family in metrics._health(moment)}
    on = [s.labels["kind"] for s in families["sprout_degraded_reason"].samples if s.value]
    assert on == ["stale", "drift", "evaluations", "other"]


# --- where it is served --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("tls"))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "metrics.example"])
def test_nothing_but_loopback_without_tls(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match=r"control.metrics_host .* is not loopback"):
        asyncio.run(run(configure(tmp_path, metrics_host=host), asyncio.Event()))


def test_beyond_loopback_a_certificate_is_wanted(authority: Path, tmp_path: Path) -> None:
    config = configure(tmp_path, tls=tls_of(authority, "server"), metrics_host="0.0.0.0")
    client = tls_of(authority, "client")
    with running(config) as address, stub_of(address, client) as stub:
        first(stub)
        where = f"https://{metrics_of(stub)}/metrics"
        trust = ssl.create_default_context(cafile=str(authority / "ca.pem"))
        with pytest.raises((httpx.ReadError, httpx.ConnectError, httpx.RemoteProtocolError)):
            httpx.get(where, verify=trust, timeout=WAIT_S)
        trust.load_cert_chain(authority / "client.pem", authority / "client.key")
        assert "sprout_degraded 0.0" in httpx.get(where, verify=trust, timeout=WAIT_S).text


def test_a_silent_peer_holds_up_nobody(authority: Path, tmp_path: Path) -> None:
    import socket

    config = configure(tmp_path, tls=tls_of(authority, "server"), metrics_host="0.0.0.0")
    with running(config) as address, stub_of(address, tls_of(authority, "client")) as stub:
        first(stub)
        host, _, port = metrics_of(stub).rpartition(":")
        with socket.create_connection((host, int(port))):
            trust = ssl.create_default_context(cafile=str(authority / "ca.pem"))
            trust.load_cert_chain(authority / "client.pem", authority / "client.key")
            answer = httpx.get(f"https://{host}:{port}/metrics", verify=trust, timeout=WAIT_S)
            assert answer.status_code == 200


def test_a_taken_port_is_an_error(busy: tuple[Stub, str], tmp_path: Path) -> None:
    port = int(busy[1].rpartition(":")[2])
    with pytest.raises(StackError, match=r"can't serve metrics on .*control.metrics_port"):
        asyncio.run(run(configure(tmp_path, metrics_port=port), asyncio.Event()))


def test_a_loop_that_hangs_fails_the_scrape(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that was true once must not pass for the present."""
    monkeypatch.setattr(metrics, "SCRAPE_TIMEOUT_S", 0.05)
    hung = asyncio.new_event_loop()  # nobody runs it
    collector = metrics.Decisions(None, None, None, hung)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError):
        next(collector.collect())
    hung.run_until_complete(asyncio.sleep(0))  # the question was taken back
    hung.close()
