# SPDX-License-Identifier: Apache-2.0
"""The command line. Exit codes: 0 done, 1 failed, 2 wrong usage or configuration.

What a command needs is imported when it runs, so that `sprout --help` and the agent start at once.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from sprout import __version__
from sprout.config import Config, load
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

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


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


def _config(context: typer.Context) -> Config:
    loader: Callable[[], Config] = context.obj
    return loader()


@app.command()
def up(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings alone.")] = False,
    json: Json = False,
) -> None:
    """The whole stack in the foreground, supervised, until Ctrl-C."""
    from sprout.console import up as console

    console.run(_config(context), quiet=quiet, json=json)


@app.command()
def down(context: typer.Context, json: Json = False) -> None:
    """Stop the stack of this name, in order."""
    from sprout.console.output import emit_json
    from sprout.serve.stack import down as stop

    cfg = _config(context)
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

    cfg = _config(context)
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
    task: Annotated[str | None, typer.Option(help="Task class, for the outcome.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1)] = 256,
    off: Annotated[bool, typer.Option("--off", help="No directive: L0, counted apart.")] = False,
    json: Json = False,
) -> None:
    """One prompt, streamed, with its receipt."""
    from sprout.console import ask as console

    hints = {"level": level, "task": task, "max_tokens": max_tokens, "off": off}
    console.run(_config(context), text, json=json, **hints)


@app.command()
def plan(
    context: typer.Context,
    intensity: Annotated[
        float | None, typer.Option(min=0, help="g/kWh; default: what the control plane goes by.")
    ] = None,
    low: Annotated[float | None, typer.Option(help="Lower end of the range, g/kWh.")] = None,
    high: Annotated[float | None, typer.Option(help="Upper end of the range, g/kWh.")] = None,
    json: Json = False,
) -> None:
    """Solve for given or current inputs and explain; changes nothing."""
    from sprout.console import plan as console

    console.run(_config(context), intensity, low, high, json=json)


@app.command()
def pause(
    context: typer.Context,
    reason: Annotated[str, typer.Option(help="Shown in the status.")] = "",
    json: Json = False,
) -> None:
    """The kill switch: L0 everywhere, at once, until `resume`."""
    from sprout.console import operator

    operator.show(operator.pause(_config(context), reason), json=json)


@app.command()
def resume(context: typer.Context, json: Json = False) -> None:
    """End the pause."""
    from sprout.console import operator

    operator.show(operator.resume(_config(context)), json=json)


@app.command()
def doctor(context: typer.Context, json: Json = False) -> None:
    """What is installed, found and reachable, and what to do about what is not."""
    from sprout.console import doctor as console

    if not console.run(_config(context), json=json):
        raise typer.Exit(1)


@app.command()
def demo(
    json: Json = False,
    picture: Annotated[Path, typer.Option(help="Where the PNG goes.")] = Path("sprout-demo.png"),
) -> None:
    """The whole stack on this machine: real prompts, receipts, policy, comparison."""
    from sprout.demo import run as console

    if not console(picture, json=json):
        raise typer.Exit(1)


@app.command()
def control(context: typer.Context) -> None:
    """The control plane alone."""
    from sprout.console import alone

    alone.control(_config(context))


@app.command()
def agent(context: typer.Context) -> None:
    """This node's agent alone."""
    from sprout.console import alone

    alone.agent(_config(context))


@app.command()
def engine(context: typer.Context) -> None:
    """The embedded engine alone (engine.port must be set)."""
    from sprout.console import alone

    alone.engine(_config(context))


@app.command()
def triton(context: typer.Context, json: Json = False) -> None:
    """Triton alone, supervised, for the engine at engine.host and engine.port."""
    from sprout.console import up as console

    console.run(_config(context), processes=("triton",), quiet=False, json=json)


@app.command()
def render(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="A new folder.")],
    engine: Annotated[str, typer.Option(help="llama_cpp or echo.")] = "llama_cpp",
) -> None:
    """A complete model repository for a Triton container."""
    from sprout.console import alone

    alone.render(_config(context), engine, out)


if __name__ == "__main__":
    main()
