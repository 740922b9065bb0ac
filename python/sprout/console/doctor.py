# SPDX-License-Identifier: Apache-2.0
"""`sprout doctor`: the findings, each with its remedy."""

from sprout.config import Config
from sprout.console.output import emit_json, out
from sprout.serve import doctor
from sprout.serve.finding import Mark

_SIGNS = {Mark.OK: "[green]ok  [/]", Mark.NOTE: "[yellow]note[/]", Mark.BAD: "[red]BAD [/]"}


def run(cfg: Config, *, json: bool) -> bool:
    """True if nothing is bad."""
    findings = []
    for finding in doctor.examine(cfg):
        findings.append(finding)
        if not json:
            out.print(f"{_SIGNS[finding.mark]}  {finding.what:<16} ", end="")
            out.print(finding.found, markup=False)
            if finding.remedy:
                out.print(f"{'':24}→ {finding.remedy}", markup=False)
    good = all(finding.mark is not Mark.BAD for finding in findings)
    if json:
        emit_json({"good": good, "findings": [finding.as_dict() for finding in findings]})
    return good
