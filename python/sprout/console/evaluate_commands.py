# SPDX-License-Identifier: Apache-2.0
"""`sprout evaluate` and its sub-commands, as typed."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from sprout.console.given import Json, config_of

evaluate = typer.Typer(
    invoke_without_command=True,
    help="What each level costs in quality: real prompts, answered, judged, reported.",
)


def add(app: typer.Typer) -> None:
    app.add_typer(evaluate, name="evaluate")


@evaluate.callback()
def now(
    context: typer.Context,
    prompts: Annotated[
        Path | None, typer.Option(help="JSON lines with `prompt`. Default: as configured.")
    ] = None,
    *,
    most: Annotated[int | None, typer.Option(min=1, help="Prompts, at most.")] = None,
    whole: Annotated[
        bool, typer.Option("--whole", help="Judge them all, however sure it is before.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Don't go on with one that was cut short.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the draw of prompts and of orders.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="What it would take; asks nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """One evaluation, now. Ctrl-C keeps what was judged, and the next run goes on with it."""
    if context.invoked_subcommand is not None:
        return
    from sprout.console import evaluate as console
    from sprout.evaluate.session import Options

    options = Options(prompts=prompts, most=most, whole=whole, fresh=fresh, seed=seed)
    console.run(config_of(context), options, dry_run=dry_run, json=json)


@evaluate.command("report")
def report(
    context: typer.Context,
    id_: Annotated[str, typer.Option("--id", help="Default: the newest.")] = "",
    agree: Annotated[str, typer.Option(metavar="ID", help="Compare the judge with that of.")] = "",
    picture: Annotated[Path | None, typer.Option(help="PNG, SVG or PDF, by its name.")] = None,
    json: Json = False,
) -> None:
    """q with its intervals, what it took, and answers to read side by side."""
    from sprout.console import evaluate as console

    console.report(config_of(context), id_=id_, other=agree, picture=picture, json=json)


@evaluate.command("watch")
def watch(context: typer.Context) -> None:
    """Run evaluations whenever they are due, until SIGTERM (`sprout up` starts this)."""
    from sprout.console import evaluate as console

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # else a line for each call of a judge
    console.watch(config_of(context))
