# SPDX-License-Identifier: Apache-2.0
"""`sprout replay …` and `sprout predictor …`, as typed."""

from pathlib import Path
from typing import Annotated

import typer

from sprout.console.given import Json

predictor = typer.Typer(no_args_is_help=True, help="What prompts' texts say of levels.")
replay = typer.Typer(help="Measured requests and grids, run through the live decisions.")


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


def add(app: typer.Typer) -> None:
    app.add_typer(predictor, name="predictor")
    app.add_typer(replay, name="replay")
