# SPDX-License-Identifier: Apache-2.0
"""`sprout up` and `sprout triton`: a supervisor in the foreground, with its log."""

import logging

from rich.logging import RichHandler

from sprout.config import Config
from sprout.console.output import emit_json, err, out
from sprout.serve.stack import PROCESSES, Stack


def run(cfg: Config, *, processes: tuple[str, ...] = PROCESSES, quiet: bool, json: bool) -> None:
    """Until Ctrl-C or `sprout down`. Raises what `Stack.run` raises."""
    announced = False

    def changed(stack: Stack) -> None:
        nonlocal announced
        if stack.ready and not announced:
            announced = True
            emit_json(stack.describe()) if json else _announce(stack)

    stack = Stack(cfg, processes=processes, on_change=changed)
    stack.paths.ensure()
    _log_to(stack, quiet=quiet or json)
    stack.run()


def _announce(stack: Stack) -> None:
    ends = stack.describe()["endpoints"]
    name = "" if stack.cfg.stack.name == "default" else f" --stack {stack.cfg.stack.name}"
    out.print("[bold green]Sprout is up.[/]")
    out.print(f"  gRPC     {ends['grpc']}   model [bold]ensemble[/]")
    out.print(f"  HTTP     http://{ends['http']}/v2/models/ensemble/generate_stream")
    out.print(f"  metrics  http://{ends['metrics']}/metrics")
    if len(stack.describe()["processes"]) > 1:
        out.print(f"  control  {ends['control']}")
    out.print(f"  logs     {stack.paths.state / 'logs'}")
    out.print(
        f'Try: sprout{name} ask "How does a bicycle stay upright?"   ·   Ctrl-C stops it all.'
    )


def _log_to(stack: Stack, *, quiet: bool) -> None:
    root = logging.getLogger("sprout")
    root.setLevel(logging.INFO)
    file = logging.FileHandler(stack.paths.log("supervisor"))
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root.addHandler(file)
    screen: logging.Handler = logging.StreamHandler()
    screen.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    if err.is_terminal:
        screen = RichHandler(console=err, show_path=False, markup=False)
    screen.setLevel(logging.WARNING if quiet else logging.INFO)
    root.addHandler(screen)
