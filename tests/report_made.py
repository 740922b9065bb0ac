# SPDX-License-Identifier: Apache-2.0
"""A report of a made store, for tests."""

from report_store import START, Made

from sprout.console import report_text
from sprout.control.archive import Archive, Span
from sprout.control.report import Report, make
from sprout.proof.attributed import Effect

HOUR = 3600.0


def answered(made: Made) -> Made:
    """An hour of answers at two levels, with feedback and readings."""
    version = made.policy()
    made.mixed(version, 1000, 0, HOUR)
    made.feedback(version, "retry", 1, 5)
    times = [60.0 * i for i in range(61)]
    made.readings(times, [10 * t for t in times], policy_version=version)
    return made


def report(made: Made, since: float = -60.0, until: float = HOUR + 60) -> Report:
    archive = Archive(made.path)
    try:
        return make(archive, Span(START + since, START + until))
    finally:
        archive.close()


def said(found: Report) -> str:
    return "\n".join(report_text.notes(found))


def effect(found: Report, quantity: str) -> Effect:
    value = found.attributed[quantity]
    assert isinstance(value, Effect)
    return value
