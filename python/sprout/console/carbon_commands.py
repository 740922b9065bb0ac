# SPDX-License-Identifier: Apache-2.0
"""`sprout carbon …`, as typed."""

from typing import Annotated

import typer

from sprout.console.given import Json, config_of

carbon = typer.Typer(no_args_is_help=True, help="What the grid emits, and who says so.")
Hours = Annotated[float, typer.Option(min=0.5, max=744, help="How far.")]


@carbon.command("now")
def carbon_now(context: typer.Context, json: Json = False) -> None:
    """The present intensity, from which source, how old."""
    from sprout.console import carbon as console

    if not console.now(config_of(context).carbon, json=json):
        raise typer.Exit(1)


@carbon.command("history")
def carbon_history(context: typer.Context, hours: Hours = 24, json: Json = False) -> None:
    """The last hours, from the first source that knows them."""
    from sprout.console import carbon as console

    if not console.series(config_of(context).carbon, "history", hours, json=json):
        raise typer.Exit(1)


@carbon.command("forecast")
def carbon_forecast(context: typer.Context, hours: Hours = 24, json: Json = False) -> None:
    """The next hours, from the first source that forecasts."""
    from sprout.console import carbon as console

    if not console.series(config_of(context).carbon, "forecast", hours, json=json):
        raise typer.Exit(1)


@carbon.command("check")
def carbon_check(context: typer.Context, json: Json = False) -> None:
    """Ask every configured source once, and say what to do about those that fail."""
    from sprout.console import carbon as console

    if not console.check(config_of(context).carbon, json=json):
        raise typer.Exit(1)


def add(app: typer.Typer) -> None:
    app.add_typer(carbon, name="carbon")
