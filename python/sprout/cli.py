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
from sprout.console import evaluate_commands, operator_commands, render_commands
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


carbon = typer.Typer(no_args_is_help=True, help="What the grid emits, and who says so.")
app.add_typer(carbon, name="carbon")
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


predictor = typer.Typer(no_args_is_help=True, help="What prompts' texts say of levels.")
app.add_typer(predictor, name="predictor")


@predictor.command("fit")
def predictor_fit(
    bundle: Annotated[Path, typer.Option(help="Folder: docs/replay.md.")],
    out: Annotated[Path, typer.Option(help="File to write.")],
    json: Json = False,
) -> None:
    """Fit on a bundle's judged prompts; refuse what is no better than class means."""
    from sprout.console import predictor as console

    console.fit_bundle(bundle, out, json=json)


@predictor.command("inspect")
def predictor_inspect(file: Path, json: Json = False) -> None:
    """What a predictor's file holds, and how good it was on prompts that it had not seen."""
    from sprout.console import predictor as console

    console.inspect(file, json=json)


replay = typer.Typer(help="Measured requests and grids, run through the live decisions.")
app.add_typer(replay, name="replay")


@replay.callback(invoke_without_command=True)
def replay_run(
    context: typer.Context,
    bundle: Annotated[Path | None, typer.Option(help="Folder: docs/replay.md.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for tables, plots, report.")] = None,
    zone: Annotated[list[str] | None, typer.Option(help="Default: all. Repeat, or a,b.")] = None,
    start_hour: Annotated[
        list[int] | None, typer.Option(min=0, help="Hour of the trace; default: the bundle's.")
    ] = None,
    scheme: Annotated[
        list[str] | None, typer.Option(help="BASE, CO2_OPT, ..., BANK, PROMPT, PROMPT_BANK.")
    ] = None,
    xi: Annotated[
        list[str] | None, typer.Option(help="0.05,0.1; or published: all that were.")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="Mean preference aimed at; default 0.90 to 1.05.")
    ] = None,
    predictor: Annotated[
        Path | None, typer.Option(help="For PROMPT, PROMPT_BANK: of `sprout predictor fit`.")
    ] = None,
    hourly_minimum: Annotated[
        float, typer.Option(min=0, help="Of PROMPT_BANK: least expected preference; 0: none.")
    ] = 0.0,
    seeds: Annotated[int, typer.Option(min=1, help="Evaluators and draws; >= 11: ±.")] = 1,
    requests: Annotated[
        int, typer.Option(min=0, help="Drawn each hour; 0: their expectation.")
    ] = 10_000,
    factor: Annotated[str, typer.Option(help="direct or lifecycle.")] = "direct",
    device: Annotated[str, typer.Option(help="cpu or cuda: draws, scores, choices.")] = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what was published; fail if it is far.")
    ] = False,
    json: Json = False,
) -> None:
    """Trace-driven runs of a bundle beside what was published of it."""
    if context.invoked_subcommand is not None:
        return
    from sprout.carbon.intensity import FACTOR_TYPES
    from sprout.console import replay as console
    from sprout.optimize.means import DEVICES
    from sprout.predict.document import load as load_predictor
    from sprout.replay.run import DEFAULT_TARGETS, Request
    from sprout.replay.schemes import SCHEMES

    if bundle is None or out is None:
        raise typer.BadParameter("both are needed", param_hint="--bundle, --out")
    factors = [each for each in FACTOR_TYPES if each == factor]
    if not factors:
        raise typer.BadParameter("direct or lifecycle", param_hint="--factor")
    devices = [each for each in DEVICES if each == device]
    if not devices:
        raise typer.BadParameter("cpu or cuda", param_hint="--device")
    request = Request(
        zones=console.listed(zone),
        starts=tuple(start_hour or ()),
        schemes=console.listed(scheme) or tuple(SCHEMES),
        targets=console.numbers(target, "--target") or DEFAULT_TARGETS,
        seeds=seeds,
        requests_per_hour=requests,
        factor_type=factors[0],
        predictor=None if predictor is None else load_predictor(predictor),
        hourly_minimum=hourly_minimum,
        device=devices[0],
    )
    if not console.run(bundle, request, xi or (), out, checked=check, json=json):
        raise typer.Exit(1)


@replay.command("import")
def replay_import(clone: Path, out: Path, json: Json = False) -> None:
    """A clone of the published artifact, made into a bundle."""
    from sprout.console import replay as console

    console.import_(clone, out, json=json)


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
