# SPDX-License-Identifier: Apache-2.0
"""The node's meter: the sum of its parts, over restarts; and which parts those are."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sprout.config import Config, load
from sprout.energy import choose
from sprout.energy.choose import Absent, Found
from sprout.energy.meters import MAX_SAID, SAVE_S, NodeMeter, restore
from sprout.energy.nvml import NvmlMeter
from sprout.energy.tally import Memory, Tally
from sprout.errors import ConfigError, PrerequisiteError


class Source:
    """Raw counters that outlive their readers, by kind."""

    def __init__(self, **raw: int) -> None:
        self.raw = raw
        self.opened: list[Part] = []

    def open(self, kind: str, memory: Memory) -> "Part":
        if kind not in self.raw:
            raise PrerequisiteError(f"no {kind}: buy one")
        self.opened.append(Part(kind, self, memory))
        return self.opened[-1]


class Part:
    problem = ""

    def __init__(self, kind: str, source: Source, memory: Memory) -> None:
        self.name, self.prior_watts = f"{kind} (here)", 5.0
        self.estimated = kind == "cpu_model"
        self.kind, self.source = kind, source
        self.tally = Tally(memory, [kind], raw_per_joule=1)
        self.tally.update(kind, source.raw[kind])
        self.closed = False

    def read(self) -> float:
        self.tally.update(self.kind, self.source.raw[self.kind])
        return self.tally.joules

    def memory(self) -> Memory:
        return self.tally.memory()

    def close(self) -> None:
        self.closed = True


class Node:
    """Agents that come and go on one source."""

    def __init__(self, source: Source, state: Path) -> None:
        self.source, self.state = source, state
        self.now = 0.0

    def meter(self, *kinds: str) -> NodeMeter:
        return NodeMeter(kinds, self.source.open, state=self.state, clock=lambda: self.now)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(Source(nvml=7000, rapl=300, cpu_model=0), tmp_path / "meter.json")


def test_parts_are_added_up_and_named(node: Node) -> None:
    meter = node.meter("nvml", "rapl")
    assert meter.read() == 0
    node.source.raw["nvml"] += 10
    node.source.raw["rapl"] += 4
    assert meter.read() == 14
    assert meter.name == "nvml (here) + rapl (here)"
    assert meter.prior_watts == 10
    assert not meter.estimated
    assert node.meter("nvml", "cpu_model").estimated


def test_goes_on_after_a_kill(node: Node) -> None:
    first = node.meter("nvml", "rapl")
    node.source.raw["nvml"] += 10
    assert first.read() == 10  # saved; no close()
    node.source.raw["nvml"] += 10
    assert first.read() == 20  # within the second: not saved, and not lost either
    node.source.raw["rapl"] += 5
    assert node.meter("nvml", "rapl").read() == 25
    assert json.loads(node.state.read_text())["parts"].keys() == {"nvml", "rapl"}


def test_is_saved_once_a_second_and_at_its_end(node: Node) -> None:
    meter = node.meter("nvml")
    meter.read()
    node.source.raw["nvml"] += 10
    node.now = SAVE_S / 2
    meter.read()
    assert restore(node.state, ["nvml"])["nvml"].joules == 0
    node.now = SAVE_S
    meter.read()
    assert restore(node.state, ["nvml"])["nvml"].joules == 10
    node.source.raw["nvml"] += 1
    meter.close()
    assert restore(node.state, ["nvml"])["nvml"].joules == 11
    assert node.source.opened[0].closed


@given(
    st.lists(
        st.tuples(st.integers(0, 1000), st.integers(0, 1000), st.sampled_from(["read", "restart"])),
        max_size=20,
    )
)
def test_never_falls_and_loses_nothing_over_restarts(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, str]]
) -> None:
    node = Node(Source(nvml=5, rapl=9), tmp_path_factory.mktemp("m") / "meter.json")
    meter = node.meter("nvml", "rapl")
    seen = [meter.read()]
    for gpu, host, event in steps:
        node.source.raw["nvml"] += gpu
        node.source.raw["rapl"] += host
        if event == "restart":
            meter = node.meter("nvml", "rapl")
        seen.append(meter.read())
    assert seen == sorted(seen)
    assert seen[-1] == sum(gpu + host for gpu, host, _ in steps)


def test_another_meter_starts_at_nought(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """What is between two kinds of meter belongs to nobody; it must not fall on one tick."""
    first = node.meter("nvml")
    node.source.raw["nvml"] += 5000
    first.close()
    assert node.meter("rapl").read() == 0
    assert "another one was read here before" in caplog.text
    node.meter("rapl").close()
    assert node.meter("nvml").read() == 0


def test_another_boot_starts_at_nought(node: Node) -> None:
    first = node.meter("nvml")
    node.source.raw["nvml"] += 50
    first.close()
    body = json.loads(node.state.read_text())
    node.state.write_text(json.dumps(body | {"boot": "0"}))
    assert node.meter("nvml").read() == 0


@pytest.mark.parametrize(
    "parts",
    [
        "[1]",
        '{"nvml": 5}',
        '{"nvml": {"joules": -1, "counters": {}, "since_ticks": null}}',
        '{"nvml": {"joules": NaN, "counters": {}, "since_ticks": null}}',
        '{"nvml": {"joules": 1, "counters": {"nvml": Infinity}, "since_ticks": null}}',
        '{"nvml": {"joules": 1, "counters": {}, "since_ticks": "then"}}',
        "",
    ],
)
def test_an_unreadable_state_starts_at_nought(
    node: Node, parts: str, caplog: pytest.LogCaptureFixture
) -> None:
    node.meter("nvml").close()
    boot = json.loads(node.state.read_text())["boot"]
    node.state.write_text(f'{{"boot": "{boot}", "parts": {parts}}}')
    assert node.meter("nvml").read() == 0
    assert "unreadable, starting at 0 J" in caplog.text


def test_a_state_that_can_not_be_written_is_said_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.state = node.state.parent / "absent" / "meter.json"
    meter = node.meter("nvml")
    for node.now in (0.0, 5.0, 10.0):
        meter.read()
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_part_that_is_absent_closes_those_before_it(node: Node) -> None:
    with pytest.raises(PrerequisiteError, match="no triton: buy one"):
        node.meter("nvml", "triton")
    assert node.source.opened[0].closed


def test_what_is_wrong_now_is_said_and_fits_into_a_status(node: Node) -> None:
    meter = node.meter("nvml", "rapl")
    assert meter.said == meter.name
    node.source.opened[0].problem = "GPU 0 is lost"
    assert meter.said == "nvml (here) + rapl (here); GPU 0 is lost"
    node.source.opened[0].problem = "x" * 1000
    assert len(meter.said) == MAX_SAID


# --- which of them -------------------------------------------------------------------------------


def config(tmp_path: Path, **energy: object) -> Config:
    return Config.model_validate(
        {
            "stack": {"state_dir": tmp_path, "shm_dir": tmp_path},
            "engine": {"threads": 3},
            "energy": {"rapl_root": tmp_path / "powercap", "watts_per_core": 7, **energy},
        }
    )


def powercap(tmp_path: Path) -> None:
    package = tmp_path / "powercap" / "intel-rapl:0"
    package.mkdir(parents=True)
    for name, text in (
        ("name", "package-0"),
        ("energy_uj", "5"),
        ("max_energy_range_uj", "1000000"),
    ):
        (package / name).write_text(text)


def test_auto_takes_the_declared_model_where_nothing_measures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made = choose.meter(config(tmp_path))
    assert made.said.startswith("cpu_model; no process of this stack runs")
    assert made.said.endswith(" (auto)")
    assert made.prior_watts == 21
    assert made.read() == 0.0
    made.close()
    assert (tmp_path / "meter.json").exists()
    assert "nvml: engine.kind llama_cpp computes on the CPU" in caplog.text
    assert "rapl: no RAPL counter under" in caplog.text


def test_auto_takes_the_first_that_works(tmp_path: Path) -> None:
    powercap(tmp_path)
    made = choose.meter(config(tmp_path))
    assert made.said == "rapl (1 package) (auto)"
    assert not made.estimated
    made.close()


class IdleGpu:
    """Works, and has nothing to do with what the engine computes."""

    name, estimated, problem, prior_watts = "nvml (1 x here)", False, "", 700.0

    def __init__(self, *_: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_auto_never_bills_an_idle_gpu_to_a_cpu_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choose, "NvmlMeter", IdleGpu)
    assert choose.chosen(config(tmp_path)) == (("cpu_model",), " (auto)")
    beside = config(tmp_path)
    engine = beside.engine.model_copy(update={"kind": "external"})
    beside = beside.model_copy(update={"engine": engine})
    assert choose.chosen(beside) == (("nvml",), " (auto)")


def test_a_named_meter_that_is_absent_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError, match="no RAPL counter"):
        choose.meter(config(tmp_path, meters=["rapl"]))


def test_the_survey_has_every_kind_with_a_reason_or_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(gpus: Sequence[int | str], memory: Memory) -> NvmlMeter:
        raise PrerequisiteError("no driver: install it")

    monkeypatch.setattr(choose, "NvmlMeter", broken)
    powercap(tmp_path)
    found = list(choose.survey(config(tmp_path, triton_metrics_url="http://127.0.0.1:9/metrics")))
    assert [one.kind for one in found] == list(choose.ORDER)
    nvml, rapl, triton, model = found
    assert nvml == Absent("nvml", "no driver", "install it")
    assert rapl == Found("rapl", "rapl (1 package)", False)
    assert isinstance(triton, Absent)
    assert "does not answer" in triton.reason
    assert model == Found("cpu_model", "cpu_model", True)


def test_an_agent_loads_no_library_of_a_meter_that_it_does_not_read() -> None:
    """Only importing is looked at: what a meter needs, it loads when it is opened."""
    code = "import sys, sprout.energy.choose as c; print({'pynvml', 'httpx'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"


def test_where_triton_tells_its_metrics() -> None:
    made = load(environ={}, flags={"triton.host": "0.0.0.0", "triton.metrics_port": 7})
    assert choose.metrics_url(made) == "http://127.0.0.1:7/metrics"
    made = load(environ={}, flags={"energy.triton_metrics_url": "http://triton:8002/metrics"})
    assert choose.metrics_url(made) == "http://triton:8002/metrics"
    with pytest.raises(ConfigError, match=r"set energy\.triton_metrics_url"):
        choose.metrics_url(load(environ={}, flags={"triton.metrics_port": 0}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"energy.meters": ""}, "at least 1 item"),
        ({"energy.meters": "auto,rapl"}, '"auto" alone'),
        ({"energy.meters": "rapl,rapl"}, "each meter once"),
        ({"energy.meters": "nvml,triton"}, "nvml and triton meter the same"),
        ({"energy.meters": "cpu_model,rapl"}, "cpu_model and rapl meter the same"),
        ({"energy.meters": "carbontracker"}, r"energy\.meters\.0"),
        ({"energy.meters": "triton", "energy.gpus": "0"}, "by its UUID alone"),
        ({"energy.meter": "nvml"}, r"did you mean energy\.meters\?"),
    ],
)
def test_meters_that_make_no_sense_are_refused(flags: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(environ={}, flags=flags)
