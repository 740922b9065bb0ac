# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: five floors, and two paths that meet in shared memory alone."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "python" / "sprout"

# A file imports from its own floor and those beneath.
FLOORS = (
    {"cli", "demo", "console"},
    {"control", "replay", "model_repository"},
    {"request", "agent", "serve", "evaluate"},
    {
        *("directives", "chat", "engines", "config", "channel"),
        *("energy", "carbon", "profile", "policy_version", "predict"),
    },
    {"optimize", "proof", "errors", "units", "sprout_ext", "v1", ""},  # "" = sprout/__init__.py
)
FLOOR = {unit: number for number, units in enumerate(FLOORS, start=1) for unit in units}

# The request path: Triton's stubs. The engine *process* lives in engines/ too, and is none of it.
REQUEST_UNITS = {"request", "engines", "model_repository"}
ENGINE_PROCESS = {"sprout.engines.llama_cpp"}
REQUEST_NEVER = {
    *("grpc", "pydantic", "sqlalchemy", "highspy", "google"),
    *("sprout.v1", "sprout.config", "sprout.channel"),
    *("sprout.control", "sprout.agent", "sprout.carbon", "sprout.optimize", "sprout.serve"),
    *("sprout.proof", "sprout.evaluate", "sprout.replay"),
}
CONTROL_UNITS = {"control", "agent", "carbon", "optimize", "proof", "evaluate", "replay"}
CONTROL_NEVER = {"sprout.request", "sprout.engines", "triton_python_backend_utils"}


def modules() -> dict[str, Path]:
    """Module name → file, of everything that is served or run."""
    found = {}
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    for file in (ROOT / "model_repository").glob("*/1/*.py"):
        found[f"model_repository.{file.parts[-3]}.{file.stem}"] = file
    return found


MODULES = modules()


def unit(module: str) -> str:
    """The name that stands on a floor: `sprout.serve.triton` → `serve`."""
    parts = module.split(".")
    if parts[0] in ("model_repository", "sprout_ext"):
        return parts[0]
    return parts[1] if len(parts) > 1 else ""


@cache
def imports(module: str) -> frozenset[str]:
    """Every module that a file names, function bodies included, as `a.b.c`; the package of
    `from sprout.serve import ports` counts as `sprout.serve.ports`."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text())))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the floor"
            base = node.module or ""
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield full if full in MODULES else base


def ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ("sprout", "sprout_ext")


def within(module: str, packages: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in packages)


def reached(start: str) -> dict[str, str]:
    """Module → who imports it, for everything that importing `start` can pull in."""
    found, left = {start: ""}, [start]
    while left:
        here = left.pop()
        for name in imports(here) if here in MODULES else ():
            if name not in found:
                found[name] = here
                left.append(name)
    return found


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_file_imports_from_its_own_floor_and_beneath(module: str) -> None:
    own = FLOOR.get(unit(module))
    assert own is not None, f"{module} stands on no floor: add {unit(module)!r} to FLOORS"
    above = {name for name in imports(module) if ours(name) and FLOOR[unit(name)] < own}
    assert not above, f"{module} (floor {own}) imports from above: {sorted(above)}"


@pytest.mark.parametrize(
    "module", sorted(m for m in MODULES if unit(m) in REQUEST_UNITS and m not in ENGINE_PROCESS)
)
def test_the_request_path_never_reaches_the_control_path(module: str) -> None:
    """Neither by itself nor through what it imports."""
    found = {name: by for name, by in reached(module).items() if within(name, REQUEST_NEVER)}
    assert not found, f"{module} reaches {found}"


@pytest.mark.parametrize("module", sorted(m for m in MODULES if unit(m) in CONTROL_UNITS))
def test_the_control_path_never_reaches_the_request_path(module: str) -> None:
    found = {name: by for name, by in reached(module).items() if within(name, CONTROL_NEVER)}
    assert not found, f"{module} reaches {found}"


def test_the_check_can_fail() -> None:
    """It sees imports inside functions, and submodules named by `from`."""
    tree = ast.parse("def f():\n    from sprout.serve import ports\n    import grpc.aio\n")
    assert set(_imports(tree)) == {"sprout.serve.ports", "grpc.aio"}
    assert within("grpc.aio", REQUEST_NEVER)
    assert FLOOR[unit("sprout.serve.ports")] < FLOOR[unit("sprout.units")]
