# SPDX-License-Identifier: Apache-2.0
"""What operators type: the commands that change a running control plane, and its records.

Nothing but typer is imported until one of them runs.
"""

from typing import Annotated, Any

import typer

from sprout.console.given import Fraction, Json, config_of


def add(app: typer.Typer) -> None:
    """All of them, in the order in which the help shows them."""
    for command in (pause, resume, objective, pin, unpin, schedule, history, audit, watch):
        app.command()(command)


def pause(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Shown in the status.")] = "",
    json: Json = False,
) -> None:
    """The kill switch: L0 everywhere, at once, until `resume`."""
    from sprout.console import operator

    operator.show(operator.pause(config_of(context), reason), json=json)


def resume(context: typer.Context, json: Json = False) -> None:
    """End the pause."""
    from sprout.console import operator

    operator.show(operator.resume(config_of(context)), json=json)


def objective(
    context: typer.Context,
    xi: Fraction = None,
    mode: Annotated[str | None, typer.Option(help="paper or bank.")] = None,
    control_share: Fraction = None,
    canary_share: Fraction = None,
    cap: Annotated[
        list[str] | None, typer.Option(metavar="LEVEL=SHARE", help="The most of a level.")
    ] = None,
    max_increase: Annotated[
        float | None, typer.Option(min=0, max=1, help="The most that a level grows by a policy.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="First as configured.")] = False,
    reason: Annotated[str, typer.Option(help="For the audit.")] = "",
    json: Json = False,
) -> None:
    """What the control plane decides by; with options: set it. Outlives restarts."""
    from sprout.console import operator, record

    fields = {
        "xi": xi,
        "mode": mode,
        "control_share": control_share,
        "canary_share": canary_share,
        "max_increase": max_increase,
    }
    wanted: dict[str, Any] = {name: value for name, value in fields.items() if value is not None}
    if cap:
        if not all("=" in each for each in cap):
            raise typer.BadParameter("write LEVEL=SHARE", param_hint="--cap")
        wanted["max_shares"] = operator.shares(cap)
    record.objective(config_of(context), wanted, reset=reset, reason=reason, json=json)


def pin(
    context: typer.Context,
    mix: Annotated[list[str], typer.Argument(help="L1, or L0=0.4 L1=0.6.")],
    reason: Annotated[str, typer.Option(help="The status shows it to everybody.")],
    for_: Annotated[str, typer.Option("--for", help="90s, 10m, 1h, 2d; at most 7d.")] = "1h",
    json: Json = False,
) -> None:
    """One mix for everything, for a while. The floor is not enforced meanwhile."""
    from sprout.console import operator

    shares, ttl_s = operator.shares(mix), operator.seconds(for_)
    operator.show(operator.pin(config_of(context), shares, ttl_s, reason), json=json)


def unpin(context: typer.Context, json: Json = False) -> None:
    """End the pin."""
    from sprout.console import operator

    operator.show(operator.unpin(config_of(context)), json=json)


def schedule(
    context: typer.Context,
    windows: Annotated[
        list[str] | None, typer.Argument(help="22:00-06:00=L0, sat,sun@00:00-23:59=L1 (UTC).")
    ] = None,
    clear: Annotated[bool, typer.Option("--clear", help="No schedule any more.")] = False,
    json: Json = False,
) -> None:
    """Parts of the day with a level for everything; the first that fits counts. Alone: show it."""
    from sprout.channel import as_dict
    from sprout.console import operator
    from sprout.console.output import emit_json

    if clear and windows:
        raise typer.BadParameter("either windows or --clear", param_hint="--clear")
    cfg = config_of(context)
    if windows or clear:
        operator.set_schedule(cfg, [operator.window(text) for text in windows or ()])
    now = operator.status(cfg).schedule
    if json:
        emit_json([as_dict(window) for window in now])
    for window in () if json else now:
        days = f"{','.join(window.weekdays)}@" if window.weekdays else ""
        print(f"{days}{window.start}-{window.end}={window.level}")
    if not now and not json:
        print("no schedule")


def history(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    before: Annotated[str | None, typer.Option(help="Only policies older than this one.")] = None,
    json: Json = False,
) -> None:
    """Policies of the past, newest first. `sprout plan --decision VERSION` solves one again."""
    from sprout.console import record

    record.history(config_of(context), limit, before, json=json)


def audit(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000)] = 20,
    before: Annotated[int, typer.Option(min=0, help="Only entries older than this one.")] = 0,
    json: Json = False,
) -> None:
    """Who changed what, from what, to what; newest first."""
    from sprout.console import record

    record.audit(config_of(context), limit, before, json=json)


def watch(
    context: typer.Context,
    count: Annotated[int | None, typer.Option(min=1, help="So many, then end.")] = None,
    json: Json = False,
) -> None:
    """The status whenever it changes, at most once a second, until Ctrl-C."""
    from sprout.console import record

    record.watch(config_of(context), count, json=json)
