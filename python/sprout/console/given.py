# SPDX-License-Identifier: Apache-2.0
"""What commands are given: options that several have, and the configuration."""

from collections.abc import Callable
from typing import Annotated

import typer

from sprout.config import Config

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Fraction = Annotated[float | None, typer.Option(min=0, max=1)]


def config_of(context: typer.Context) -> Config:
    """As files, environment and the program's own options say. ConfigError where they are wrong."""
    loader: Callable[[], Config] = context.obj
    return loader()
