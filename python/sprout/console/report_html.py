# SPDX-License-Identifier: Apache-2.0
"""A report as one page that needs nothing else: styles and plots are inside."""

from html import escape

from sprout.console import report_text as text
from sprout.control.report import Line, Report

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  color: #22302a; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; }
td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f2f6f3; }
svg { max-width: 100%; height: auto; }
"""
NO_PLOTS = "No plots: they need matplotlib, which the extra `local` installs."


def page(report: Report, by: str) -> str:
    """HTML; without matplotlib it says that the plots are missing."""
    others = [name for name in report.lines if name != by]
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f"<title>Sprout: {escape(text.title(report))}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Sprout: {escape(text.title(report))}</h1>",
        _paragraphs(text.grid(report)),
        *_plots(report),
        *(
            f"<h2>{escape(heading)}</h2>{_paragraphs(sentences)}"
            for heading, sentences in text.sections(report).items()
        ),
        *(_table(report.lines[name], name) for name in (by, *others) if report.lines[name]),
        "</body></html>",
    ]
    return "\n".join(parts)


def _paragraphs(sentences: list[str]) -> str:
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences)


def _table(lines: list[Line], by: str) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in (by, *text.LINE_COLUMNS))
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in (line.name, *text.cells(line)))
        + "</tr>"
        for line in lines
    )
    return f"<h2>By {escape(by)}</h2><table><tr>{head}</tr>{rows}</table>"


def _plots(report: Report) -> list[str]:
    if not any(part.requests for part in report.timeline):
        return []
    try:
        from sprout.console.report_plots import timeline
    except ImportError:
        return [f"<p>{escape(NO_PLOTS)}</p>"]
    return [timeline(report)]
