# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

What a command needs is imported when it runs, so that `sprout --help` and the agent start at once.
"""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from sprout import __version__
from sprout.config import load
from sprout.console import (
    carbon_commands,
    evaluate_commands,
    operator_commands,
    render_commands,
    replay_commands,
)
from sprout.console.given import Json, config_of
from sprout.errors import ConfigError, SproutError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Carbon-aware generation directives for LLM serving on NVIDIA Triton.",
    epilog="--config, --stack and --set may also stand after the command.",
)
# They belong to the whole program; people type them after the command all the same.
_GLOBAL = ("--config", "--stack", "--set")


def main() -> None:
    """Entry point of `sprout`."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Exit code. A failure is one line on stderr, never a traceback."""
    try:
        app(_globals_first(arguments), prog_name="sprout", standalone_mode=True)
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 1
    except ConfigError as error:
        print(f"sprout: {error}", file=sys.stderr)
        return 2
    except SproutError as error:
        print(f"sprout: {error}", file=sys.stderr)
        return 1
    return 0


def _globals_first(arguments: list[str]) -> list[str]:
    first: list[str] = []
    rest: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            rest += [argument, *left]
        elif argument in _GLOBAL:
            first += [argument, *[value for value in [next(left, None)] if value is not None]]
        elif argument.startswith(tuple(f"{name}=" for name in _GLOBAL)):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def _version(wanted: bool) -> None:
    if wanted:
        print(f"sprout {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(help="Default: $SPROUT_CONFIG, then ./sprout.toml.")
    ] = None,
    stack: Annotated[str | None, typer.Option(help="Name of the stack (stack.name).")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, e.g. --set control.xi=0.2."),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    flags: dict[str, Any] = {"stack.name": stack}
    for pair in set_ or ():
        key, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} is not KEY=VALUE", param_hint="--set")
        flags[key.strip()] = value
    context.obj = lambda: load(config, flags=flags)


@app.command()
def up(
    context: typer.Context,
    engine: Annotated[str | None, typer.Option(help="engine.kind, e.g. openai or vllm.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings alone.")] = False,
    json: Json = False,
) -> None:
    """The whole stack in the foreground, supervised, until Ctrl-C."""
    from sprout.console import up as console
    from sprout.serve.engine import of_kind

    cfg = config_of(context)
    console.run(of_kind(cfg, engine or cfg.engine.kind), quiet=quiet, json=json)


@app.command()
def down(context: typer.Context, json: Json = False) -> None:
    """Stop the stack of this name, in order."""
    from sprout.console.output import emit_json
    from sprout.serve.stack import down as stop

    cfg = config_of(context)
    name, stopped = cfg.stack.name, stop(cfg)
    if json:
        emit_json({"stack": name, "stopped": stopped})
    else:
        print(f"{name}: stopped" if stopped else f"{name}: was not up")


@app.command()
def status(context: typer.Context, json: Json = False) -> None:
    """What runs, which policy is in force and why, what is wrong."""
    from sprout.console import status as console
    from sprout.console.output import emit_json
    from sprout.directives import pack

    cfg = config_of(context)
    document, message = console.gather(cfg)
    if json:
        emit_json(document)
    else:
        console.show(document, message, pack(cfg.request.pack).levels)
    if document["stack"] is None and message is None:
        raise typer.Exit(1)


@app.command()
def ask(
    context: typer.Context,
    text: str,
    level: Annotated[str | None, typer.Option(help="Pin a level by name, e.g. L1.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Task class, for the outcome and its mix.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Tenant; its mix stands above a task's.")
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    off: Annotated[bool, typer.Option("--off", help="No directive: L0, counted apart.")] = False,
    json: Json = False,
) -> None:
    """One prompt, streamed, with its receipt."""
    from sprout.console import ask as console

    hints = {"level": level, "off": off, "task": task, "tenant": tenant}
    console.run(config_of(context), text, json=json, max_tokens=max_tokens, **hints)


@app.command()
def plan(
    context: typer.Context,
    intensity: Annotated[
        float | None, typer.Option(min=0, help="g/kWh; default: what the control plane goes by.")
    ] = None,
    low: Annotated[float | None, typer.Option(help="Lower end of the range, g/kWh.")] = None,
    high: Annotated[float | None, typer.Option(help="Upper end of the range, g/kWh.")] = None,
    decision: Annotated[
        str | None, typer.Option(metavar="VERSION", help="A policy of the past, solved again.")
    ] = None,
    json: Json = False,
) -> None:
    """Solve for given or current inputs and explain; changes nothing."""
    from sprout.console import plan as console

    if decision is not None:
        if not intensity is low is high is None:
            raise typer.BadParameter("a decision has its own inputs", param_hint="--decision")
        if not console.again(config_of(context), decision, json=json):
            raise typer.Exit(1)
        return
    console.run(config_of(context), intensity, low, high, json=json)


@app.command()
def report(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="24h, 7d, or an ISO 8601 time (UTC).")],
    until: Annotated[str, typer.Option(help="The same; default: now.")] = "now",
    by: Annotated[str, typer.Option(help="arm, level, task, tenant or zone.")] = "arm",
    csv: Annotated[Path | None, typer.Option(help="Every number, one a row.")] = None,
    html: Annotated[Path | None, typer.Option(help="One page with plots.")] = None,
    json: Json = False,
) -> None:
    """What was used and saved, from the store; works while the control plane runs."""
    from sprout.console import report as console

    console.run(config_of(context), since, until, by, json=json, csv=csv, html=html)


@app.command()
def profile(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="Where the profile goes.")] = Path("profile.json"),
    prompts: Annotated[
        Path | None, typer.Option(help='JSON lines with "prompt"; default: the demo\'s dozen.')
    ] = None,
    concurrency: Annotated[
        str | None, typer.Option(help="Requests in flight, closed loop; default 1,4,8.")
    ] = None,
    rates: Annotated[
        str | None,
        typer.Option(help="Requests/s, open loop; default 20, 50, 80 % of what L0 can do."),
    ] = None,
    window: Annotated[float | None, typer.Option(min=0.5, help="Seconds a window.")] = None,
    windows: Annotated[int | None, typer.Option(min=1, help="Windows a condition.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Of order, prompts and arrivals.")] = 1,
    quick: Annotated[
        bool, typer.Option("--quick", help="Short windows, 1 and 4 in flight: a first look.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure the running engine at every level and load; writes profile.json."""
    from sprout.console import profile as console

    options = console.options(
        prompts=prompts,
        concurrency=concurrency,
        rates=rates,
        window_s=window,
        windows=windows,
        max_tokens=max_tokens,
        seed=seed,
        quick=quick,
    )
    console.run(config_of(context), options, out, json=json)


operator_commands.add(app)
evaluate_commands.add(app)


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """What is installed, found and reachable, and what to do about what is not."""
    from sprout.console import doctor as console

    if not console.run(config_of(context), json=json):
        raise typer.Exit(1)


carbon_commands.add(app)
replay_commands.add(app)


@app.command()
def demo(
    zone: Annotated[
        str | None, typer.Argument(help="With --day: a zone of the data folder, or GB.")
    ] = None,
    day: Annotated[
        bool, typer.Option("--day", help="A day of a real grid instead, in fast motion.")
    ] = False,
    seconds: Annotated[
        float, typer.Option(min=20, max=3600, help="With --day: how long its 24 hours take.")
    ] = 120,
    picture: Annotated[
        Path | None,
        typer.Option(help="Where the PNG goes.", show_default="sprout-demo.png, sprout-day.png"),
    ] = None,
    json: Json = False,
) -> None:
    """The whole stack on this machine: real prompts, receipts, policy, comparison."""
    if zone is not None and not day:
        raise typer.BadParameter("only --day takes a zone", param_hint="ZONE")
    if day:
        from sprout.console import demo_day

        png = picture or Path("sprout-day.png")
        good = demo_day.run(png, zone=zone, seconds=seconds, json=json)
    else:
        from sprout import demo as once

        good = once.run(picture or Path("sprout-demo.png"), json=json)
    if not good:
        raise typer.Exit(1)


@app.command()
def control(context: typer.Context) -> None:
    """The control plane alone."""
    from sprout.console import alone

    alone.control(config_of(context))


@app.command()
def agent(context: typer.Context) -> None:
    """This node's agent alone."""
    from sprout.console import alone

    alone.agent(config_of(context))


@app.command()
def engine(context: typer.Context) -> None:
    """The embedded engine alone (engine.port must be set)."""
    from sprout.console import alone

    alone.engine(config_of(context))


@app.command()
def triton(context: typer.Context, json: Json = False) -> None:
    """Triton alone, supervised, for the engine at engine.host and engine.port."""
    from sprout.console import up as console

    console.run(config_of(context), processes=("triton",), quiet=False, json=json)


render_commands.add(app)


if __name__ == "__main__":
    main()
