# SPDX-License-Identifier: Apache-2.0
"""What an evaluation has judged so far, on disk, so that a killed one goes on where it was.

One file of JSON lines for each evaluation: a header, an entry for each question, what each sitting
took, what is about to be reported, and at its end the evaluation itself. Texts are in it only where
the questions come from a file of the operator's; of prompts that were sampled there is the id and
nothing else.
"""

import base64
import contextlib
import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sprout.config import Config
from sprout.errors import EvaluationError
from sprout.evaluate.answers import Answer, Judged, Question

KEPT = 20  # finished evaluations, the newest
MAX_AGE_S = 24 * 3600.0  # an unfinished one that is older says little of today's traffic
SUFFIX = ".jsonl"


@dataclass(frozen=True, slots=True)
class Key:
    """Entries of two evaluations go together only where all of this is the same."""

    pack_hash: str
    judge_version: str
    method: str
    prompts: str  # where they come from, with a fingerprint
    levels: tuple[str, ...]
    sampling: str  # how answers are made: max tokens, temperature, …
    engine: str = ""  # who makes them
    draw: int = 0  # the seed of the draw of questions


@dataclass(frozen=True, slots=True)
class Took:
    """To have one question answered at every level."""

    requests: int = 0
    output_tokens: int = 0
    joules: float = 0.0
    estimated: bool = False
    carbon_g: float | None = 0.0  # None: intensity not known for some

    @classmethod
    def of(cls, answers: list[Answer]) -> "Took":
        grams = [answer.carbon_g for answer in answers]
        known = [g for g in grams if g is not None]
        return cls(
            len(answers),
            sum(answer.output_tokens for answer in answers),
            sum(answer.energy_joules for answer in answers),
            any(answer.energy_estimated for answer in answers),
            sum(known) if len(known) == len(grams) else None,
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """One question."""

    id: str
    task: str
    weight: float
    scores: tuple[float, ...] = ()  # (levels,); () = it could not be judged
    orders: tuple[tuple[float, float], ...] = ()  # see `answers.Judged`
    output_tokens: tuple[int, ...] = ()  # (levels,)
    unusable: tuple[tuple[int, str], ...] = ()  # (level, why)
    took: Took = Took()
    predicted: tuple[float, ...] = ()  # see `scoring.Scoring.of`; () = nobody was asked
    weights: str = ""  # SHA-256 of what predicted it
    prompt: str | None = None  # texts, where they may be kept
    answers: tuple[str, ...] = ()  # (levels,)

    @property
    def judged(self) -> Judged | None:
        if not self.scores:
            return None
        question = Question(self.id, self.prompt or "", self.task, weight=self.weight)
        return Judged(question, self.scores, self.orders, self.output_tokens)


@dataclass
class Journal:
    """An evaluation's file, open for more entries. EvaluationError where it can't be used."""

    path: Path
    id: str
    key: Key
    started_at: float  # seconds since 1970
    entries: list[Entry] = field(default_factory=list)
    # What earlier sittings took; the last line of each counts.
    earlier: list[dict[str, Any]] = field(default_factory=list)
    # Questions that the engine did not answer, by id, and the kind of error. They are asked again.
    left_out: dict[str, str] = field(default_factory=dict)
    # Serialized sprout.v1.Evaluation that may have been reported, and its notes.
    unacknowledged: tuple[bytes, tuple[str, ...]] | None = None
    evaluation: dict[str, Any] | None = None  # once it is finished
    _file: Any = None

    @property
    def resumed(self) -> bool:
        return bool(self.entries)

    def add(self, entry: Entry) -> None:
        """It is on disk on return."""
        self.entries.append(entry)
        self.left_out.pop(entry.id, None)
        self._write({"entry": asdict(entry)})

    def leave_out(self, questions: Mapping[str, str]) -> None:
        """By id, the kind of error; those that are known already are not written again."""
        new = {id_: why for id_, why in questions.items() if self.left_out.get(id_) != why}
        if new:
            self.left_out |= new
            self._write({"left_out": new})

    def sitting(self, account: Mapping[str, Any]) -> None:
        """What was taken since this journal was opened, all in all."""
        self._write({"sitting": dict(account)})

    def reporting(self, message: bytes, notes: Sequence[str]) -> None:
        """Before it is sent: if nobody says that it arrived, the same is sent again."""
        self.unacknowledged = message, tuple(notes)
        text = base64.b64encode(message).decode()
        self._write({"reporting": {"message": text, "notes": list(notes)}})

    def refused(self) -> None:
        """What was to be reported is not wanted."""
        self.unacknowledged = None
        self._write({"reporting": None})

    def finish(self, evaluation: dict[str, Any]) -> None:
        self.evaluation = evaluation
        self._write({"evaluation": evaluation})
        self.close()
        prune(self.path.parent)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, line: dict[str, Any]) -> None:
        try:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except (OSError, ValueError) as error:
            raise EvaluationError(f"can't write {self.path}: {error}") from None


def place(cfg: Config) -> Path:
    """The folder of a stack's journals."""
    return cfg.stack.state / "evaluations"


def open_journal(folder: Path, key: Key, *, fresh: bool = False) -> Journal:
    """The newest unfinished one of this key, or a new one."""
    now = time.time()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not fresh:
            for found in _unfinished(folder, now):
                if found.key == key:
                    return _reopened(found)
        prune(folder)
        stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
        name = f"{stamp}-{secrets.token_hex(4)}"
        path = folder / f"{name}{SUFFIX}"
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        made = Journal(path, name, key, now, _file=os.fdopen(descriptor, "w"))
    except OSError as error:
        raise EvaluationError(f"can't keep a journal in {folder}: {error.strerror}") from None
    made._write({"id": name, "started_at": now, "key": asdict(key)})
    return made


def unacknowledged(folder: Path) -> Iterator[Journal]:
    """Open ones of any key that may have been reported, or not; to be closed."""
    for found in _unfinished(folder, time.time()):
        if found.unacknowledged is not None:
            yield _reopened(found)


def finished(folder: Path) -> Iterator[Journal]:
    """The newest first."""
    for path in _newest(folder):
        found = read(path)
        if found is not None and found.evaluation is not None:
            yield found


def read(path: Path) -> Journal | None:
    """None where the file is no journal. A line that a kill cut short is left out."""
    found: Journal | None = None
    sitting: dict[str, Any] | None = None
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for text in path.read_text().splitlines():
            try:
                line = json.loads(text)
                if found is None:
                    found = _head(path, line)
                elif "entry" in line:
                    found.entries.append(_entry(line["entry"]))
                elif "sitting" in line:
                    sitting = line["sitting"]
                elif "opened" in line and sitting is not None:
                    found.earlier.append(sitting)
                    sitting = None
                elif "left_out" in line:
                    found.left_out |= line["left_out"]
                elif "reporting" in line:
                    found.unacknowledged = _reported(line["reporting"])
                elif "evaluation" in line:
                    found.evaluation = line["evaluation"]
            except (ValueError, KeyError, TypeError):
                continue
    if found is None:
        return None
    if sitting is not None:
        found.earlier.append(sitting)
    for entry in found.entries:
        found.left_out.pop(entry.id, None)
    return found


def prune(folder: Path) -> None:
    """Keep the newest that are finished, and unfinished ones that can still go on."""
    now, kept = time.time(), 0
    for path in _newest(folder):
        found = read(path)
        if found is not None and found.evaluation is not None:
            kept += 1
            if kept <= KEPT:
                continue
        else:
            began = path.stat().st_mtime if found is None else found.started_at
            if now - began <= MAX_AGE_S:
                continue
        path.unlink(missing_ok=True)


def _unfinished(folder: Path, now: float) -> Iterator[Journal]:
    """That can go on, the newest first."""
    for path in _newest(folder):
        found = read(path)
        if found is not None and found.evaluation is None and now - found.started_at <= MAX_AGE_S:
            yield found


def _reopened(found: Journal) -> Journal:
    """EvaluationError where it can't be written."""
    try:
        _mend(found.path)
        found._file = found.path.open("a")
    except OSError as error:
        raise EvaluationError(f"can't write {found.path}: {error.strerror}") from None
    return found


def _newest(folder: Path) -> list[Path]:
    """Their names begin with the time."""
    return sorted(folder.glob(f"*{SUFFIX}"), reverse=True)


def _mend(path: Path) -> None:
    """End the line that a kill cut short, and mark that another sitting begins."""
    with path.open("ab+") as file:
        file.seek(0, os.SEEK_END)
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(b'{"opened": true}\n')


def _head(path: Path, line: dict[str, Any]) -> Journal:
    key = line["key"] | {"levels": tuple(line["key"]["levels"])}
    return Journal(path, str(line["id"]), Key(**key), float(line["started_at"]))


def _reported(line: dict[str, Any] | None) -> tuple[bytes, tuple[str, ...]] | None:
    if line is None:
        return None
    return base64.b64decode(line["message"]), tuple(line["notes"])


def _entry(line: dict[str, Any]) -> Entry:
    return Entry(
        **line
        | {
            "scores": tuple(line["scores"]),
            "orders": tuple((float(a), float(b)) for a, b in line["orders"]),
            "output_tokens": tuple(line["output_tokens"]),
            "unusable": tuple((int(level), str(why)) for level, why in line["unusable"]),
            "took": Took(**line["took"]),
            "predicted": tuple(line.get("predicted", ())),
            "answers": tuple(line["answers"]),
        }
    )
