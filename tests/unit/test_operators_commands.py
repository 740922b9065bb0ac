# SPDX-License-Identifier: Apache-2.0
"""The command line of operators against a real control plane."""

import json
import logging
from pathlib import Path

import pytest
from control_plane import WAIT_S, configure, first, running, stub_of

from sprout import cli
from sprout.policy_version import dotted, version
from sprout.v1 import control_pb2 as pb


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(configure(tmp_path)) as address, stub_of(address) as stub:
        solved = version(first(stub))
        ours = [f"control.port={address.rpartition(':')[2]}", f"stack.state_dir={tmp_path}"]
        options = [part for setting in ours for part in ("--set", setting)]

        def say(*arguments: str, code: int = 0) -> str:
            assert cli.run([*options, *arguments]) == code
            return capsys.readouterr().out

        document = json.loads(say("objective", "--xi", "0.05", "--cap", "L2=0.5", "--json"))
        assert document["objective"]["max_shares"] == {"L2": 0.5}
        assert document["set_by_operators"] == ["max_shares", "xi"]
        assert "0.05" in say("objective").splitlines()[0]
        assert say("pin", "L2", "--for", "10m", "--reason", "drill") == (
            "pinned: L0 0 %, L1 0 %, L2 100 %\n"
        )
        line = say("watch", "--count", "1")
        assert "pinned by uid" in line
        assert "below the floor" in line
        assert json.loads(say("watch", "--count", "1", "--json"))["pin"]["reason"] == "drill"
        assert "pin" not in json.loads(say("unpin", "--json"))["explanation"]
        say("schedule", "sat,sun@22:00-06:00=L0")
        assert say("schedule") == "sat,sun@22:00-06:00=L0\n"
        assert say("schedule", "--clear") == "no schedule\n"
        rows = json.loads(say("history", "--limit", "3", "--json"))
        triggers = [row["policy"]["explanation"]["trigger"] for row in rows]
        assert triggers == ["schedule", "schedule", "unpin"]
        assert rows[0]["inputs"]["xi"] == 0.05
        assert dotted(solved) in say("history", "--limit", "50")
        again = json.loads(say("plan", "--decision", dotted(solved), "--json"))
        assert again["same_as_published"] is True
        assert again["xi"] == 0.1
        assert "the mix that was published" in say("plan", "--decision", str(solved))
        stub.Pause(pb.PauseRequest(), timeout=WAIT_S)
        now = json.loads(say("plan", "--json"))  # as if nobody had paused; under the cap
        assert now["basis"] == "the control plane's inputs"
        assert now["xi"] == 0.05
        assert now["active_constraint"] == "quality"
        given = ("--intensity", "400", "--low", "100", "--high", "400", "--json")
        assert json.loads(say("plan", *given))["floor"] == pytest.approx(0.95)
        entries = json.loads(say("audit", "--json"))
        actions = [entry["action"] for entry in entries]
        assert actions == ["pause", "schedule", "schedule", "unpin", "pin", "objective"]
        assert entries[-1]["before"]["xi"] == 0.1
        assert entries[-1]["after"]["xi"] == 0.05
        assert "objective" in say("audit", "--limit", "2", "--before", "3")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pin", "L1"], 2, "--reason"),
        (["pin", "L1", "--reason", "r", "--for", "soon"], 2, "'soon' is no duration"),
        (["pin", "L0=1", "L0=0", "--reason", "r"], 2, "LEVEL=SHARE for each once"),
        (["pin", "L9", "--reason", "r"], 1, "no level 'L9' in the pack: it has L0, L1, L2"),
        (["objective", "--xi", "2"], 2, "--xi"),
        (["objective", "--cap", "L1"], 2, "LEVEL=SHARE"),
        (["objective", "--mode", "magic"], 1, "mode must be one of paper, bank"),
        (["schedule", "tonight"], 2, "'tonight' is no window"),
        (["history", "--before", "x.y"], 2, "is no version of a policy"),
        (["plan", "--decision", "1.1"], 1, "no policy 1.1 in the store"),
        (["plan", "--decision", "1.1", "--low", "3"], 2, "has its own inputs"),
    ],
)
def test_commands_that_go_wrong(
    shared: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    # The control plane logs on a thread of its own, perhaps to what an earlier command had captured
    monkeypatch.setattr(logging, "raiseExceptions", False)
    ours = [f"control.port={shared.rpartition(':')[2]}", f"stack.state_dir={tmp_path}"]
    options = [part for setting in ours for part in ("--set", setting)]
    assert cli.run([*options, *arguments]) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
