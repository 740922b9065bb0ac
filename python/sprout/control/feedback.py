# SPDX-License-Identifier: Apache-2.0
"""How people took the answers, checked and turned into rows. A report is taken whole or refused."""

from sprout.control.inbox import FLAGS, MAX_LEVELS
from sprout.control.rows import Feedback
from sprout.v1 import control_pb2 as pb

MAX_ENTRIES = 1_000
MAX_COUNT = 1_000_000
MAX_ID = 128  # characters of a report's
KINDS = {
    pb.FEEDBACK_KIND_THUMBS_UP: "thumbs_up",
    pb.FEEDBACK_KIND_THUMBS_DOWN: "thumbs_down",
    pb.FEEDBACK_KIND_REGENERATE: "regenerate",
    pb.FEEDBACK_KIND_RETRY: "retry",
    pb.FEEDBACK_KIND_TRUNCATED: "truncated",
}


def rows(request: pb.ReportFeedbackRequest, now: float) -> list[Feedback]:
    """The entries of a report, all of it checked; ValueError says what is wrong with which.

    now: seconds since 1970.
    """
    if len(request.feedback) > MAX_ENTRIES:
        raise ValueError(f"{len(request.feedback)} entries, at most {MAX_ENTRIES} a report")
    if len(request.report_id) > MAX_ID:
        raise ValueError(f"report_id is longer than {MAX_ID} characters")
    made: list[Feedback] = []
    try:
        for entry in request.feedback:
            made.append(_row(entry, now))
    except ValueError as error:
        raise ValueError(f"feedback[{len(made)}]: {error}") from None
    return made


def _row(entry: pb.Feedback, now: float) -> Feedback:
    if entry.kind not in KINDS:
        raise ValueError(f"kind {entry.kind} is none")
    if entry.level >= MAX_LEVELS:
        raise ValueError(f"level {entry.level}, at most {MAX_LEVELS - 1}")
    level = f"L{entry.level}"
    if entry.arm not in ("", level, *FLAGS):
        raise ValueError(f"arm must be {level} or one of {', '.join(FLAGS)}: {entry.arm[:64]!r}")
    if not 1 <= entry.count <= MAX_COUNT:
        raise ValueError(f"count must be in 1 to {MAX_COUNT}: {entry.count}")
    arm, version = entry.arm or level, entry.policy_version
    return Feedback(now, KINDS[entry.kind], entry.level, version, arm, entry.count)
