# SPDX-License-Identifier: Apache-2.0
"""`sprout report` on the command line: its formats, what it refuses, stores of before."""

import csv
import json
import re
import sqlite3
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_made import HOUR, answered, effect, report
from report_store import JOULES, START, Made

from sprout.cli import run
from sprout.console.report import moment
from sprout.console.report_html import NO_PLOTS, page
from sprout.control.archive import Archive, Span
from sprout.errors import ConfigError, ControlError
from sprout.proof.interval import Absent


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    made = Made(tmp_path)
    yield made
    made.close()


def command(made: Made, *arguments: str) -> int:
    state = f"stack.state_dir={made.path.parent}"
    span = ("--since", "2023-11-14T22:13", "--until", "2023-11-14T23:20")
    return run(["--set", state, "report", *span, *arguments])


@pytest.fixture
def served(made: Made) -> Made:
    return answered(made)


def test_json_and_csv_say_the_same(
    served: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(served, "--json", "--csv", str(tmp_path / "r.csv")) == 0
    document = json.loads(capsys.readouterr().out)
    with (tmp_path / "r.csv").open(newline="") as file:
        rows = {(r["section"], r["name"], r["quantity"]): r for r in csv.DictReader(file)}
    for by, lines in document["lines"].items():
        for line in lines:
            for quantity in ("requests", "joules", "tokens"):
                written = rows[f"by {by}", line["name"], quantity]["value"]
                assert float(written) == line[quantity]
            for name, value in line["grams"].items():
                written = rows[f"by {by}", line["name"], f"grams, {name}"]["value"]
                assert float(written) == value
    saved = document["attributed"]["joules"]["saved"]
    row = rows["attributed joules", "", "saved"]
    assert [float(row[k]) for k in ("value", "low", "high")] == [
        saved[k] for k in ("value", "low", "high")
    ]
    assert rows["system", "", "reason"]["value"] == document["system"]["reason"]
    [(name, sci)] = document["sci"]["by_series"].items()
    assert float(rows[f"sci, {name}", "", "g_per_request"]["value"]) == sci["g_per_request"]
    assert rows["guard retry", "policy", "wrong"]["value"] == "4"
    assert document["span"]["since"] == "2023-11-14T22:13:00+00:00"


class Opened(HTMLParser):
    """Every element that is opened is closed, in order."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_needs_nothing_else(served: Made, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    served.outcomes(0, 3, level=0, since=0, until=HOUR, task="<script>alert(1)</script>")
    assert command(served, "--by", "task", "--html", str(tmp_path / "r.html")) == 0
    text = (tmp_path / "r.html").read_text()
    reader = Opened()
    reader.feed(text)
    assert reader.open == []
    assert {"svg", "table", "h2"} <= reader.seen
    assert "script" not in reader.seen
    assert not re.search(r'(src|href)="(?!#)', text.replace("xlink:", ""))
    svg = text[text.index("<svg") : text.index("</svg>") + len("</svg>")]
    assert len(list(ElementTree.fromstring(svg).iter())) > 50


def test_the_page_without_matplotlib_says_so(served: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "sprout.console.report_plots", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    text = page(report(served), "arm")
    assert NO_PLOTS in text
    assert "<svg" not in text
    assert "37" in text


def test_the_same_store_gives_the_same_page(served: Made) -> None:
    pytest.importorskip("matplotlib")
    assert page(report(served), "arm") == page(report(served), "arm")


def test_for_people(served: Made, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(served, "--by", "level") == 0
    words = capsys.readouterr().out
    assert "level" in words
    assert "Attributed" in words
    assert "nan" not in words.lower()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["report"], 2, "--since"),
        (["report", "--since", "yesterday"], 2, "'yesterday' is no time"),
        (["report", "--since", "1h", "--until", "2h"], 2, "is not before"),
        (["report", "--since", "1h", "--by", "node"], 2, "one of arm, level, task, tenant, zone"),
        (["report", "--since", "1h"], 1, "there is no store"),
    ],
)
def test_exit_codes(
    arguments: list[str],
    code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["--set", f"stack.state_dir={tmp_path / 'none'}", *arguments]) == code
    assert message in capsys.readouterr().err


def test_a_file_that_can_not_be_written(
    served: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(served, "--csv", str(tmp_path / "absent" / "r.csv")) == 2
    assert "can't write" in capsys.readouterr().err


def test_moments() -> None:
    now = 1_700_000_000.0
    assert moment("now", now) == now
    assert moment("90m", now) == now - 5400
    assert moment("1.5h", now) == now - 5400
    assert moment("7d", now) == now - 7 * 86_400
    assert moment("2023-11-14T22:13:20", 0.0) == moment("2023-11-14T23:13:20+01:00", 0.0) == now
    with pytest.raises(ConfigError):
        moment("-1h", now)


def test_a_store_is_read_while_it_is_written_and_never_changed(served: Made) -> None:
    archive = Archive(served.path)
    before = archive.sums(Span(START, START + HOUR))
    served.outcomes(0, 3, level=0, since=0, until=HOUR)  # the writer is not locked out
    assert len(archive.sums(Span(START, START + HOUR))) == len(before) + 1
    with archive._reading() as db, pytest.raises(Exception, match="readonly"):
        db.exec_driver_sql("DELETE FROM outcomes")
    archive.close()


def test_a_store_of_another_kind(tmp_path: Path, made: Made) -> None:
    with sqlite3.connect(made.path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ControlError, match="another version"):
        Archive(made.path)
    (tmp_path / "x").write_text("not a database, but long enough to be looked at" * 30)
    with pytest.raises(ControlError, match="not a database"):
        Archive(tmp_path / "x")


def test_a_store_from_before_these_tables(made: Made) -> None:
    made.mixed(made.policy(), 500, 0, HOUR)
    with sqlite3.connect(made.path) as db:
        for table in ("readings", "blocks", "feedback"):
            db.execute(f"DROP TABLE {table}")
    db.close()
    found = report(made)
    assert found.sci is None
    assert isinstance(found.system, Absent)
    assert JOULES[0] > effect(found, "joules").policy_mean


def test_a_store_from_before_tenants(made: Made) -> None:
    """An older one is read as it is: a report changes nothing, and upgrades nothing."""
    made.mixed(made.policy(), 500, 0, HOUR)
    with sqlite3.connect(made.path) as db:
        db.execute("ALTER TABLE outcomes DROP COLUMN tenant")
        db.execute("PRAGMA user_version = 1")
        db.commit()
    db.close()
    assert [line.name for line in report(made).lines["tenant"]] == ["none given"]
