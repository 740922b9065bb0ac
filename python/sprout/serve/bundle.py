# SPDX-License-Identifier: Apache-2.0
"""The Triton Inference Server that nvidia-pytriton carries, used without pytriton's own wrapper.

The wrapper copies the server at each start, restricts endpoints that stock tools need, and has no
setting for `--disable-auto-complete-config`; the server itself takes any model repository.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sprout.errors import PrerequisiteError

_REMEDY = "install Sprout with its `local` extra (`make setup` does)"


@dataclass(frozen=True)
class Bundle:
    """Where the parts are."""

    server: Path  # the tritonserver binary
    libraries: Path  # its shared libraries
    backend: Path  # backends/python
    stub: Path  # the Python backend's stub for this interpreter
    python_libraries: Path | None  # folder of libpython3.X.so; None: the loader finds it itself


def find() -> Bundle:
    """Raises PrerequisiteError naming what is missing. Imports nothing of pytriton's."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or not spec.submodule_search_locations:
        raise PrerequisiteError(f"nvidia-pytriton, which carries Triton, is missing: {_REMEDY}")
    package = Path(spec.submodule_search_locations[0])
    tree = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    bundle = Bundle(
        server=tree / "bin" / "tritonserver",
        libraries=package.parent / "nvidia_pytriton.libs",
        backend=tree / "backends" / "python",
        stub=tree / "python_backend_stubs" / version / "triton_python_backend_stub",
        python_libraries=python_libraries(),
    )
    for part in (bundle.server, bundle.libraries, bundle.backend, bundle.stub):
        if not part.exists():
            raise PrerequisiteError(f"nvidia-pytriton is incomplete, no {part}: {_REMEDY}")
    return bundle


def python_libraries() -> Path | None:
    """Folder of this interpreter's shared library; None leaves it to the loader."""
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    folder = Path(sysconfig.get_config_var("LIBDIR") or "/nonexistent")
    return folder if (folder / name).exists() else None


def install_backend(bundle: Bundle, backends: Path) -> None:
    """Fills `backends/python`: the backend looks for its stub beside itself. Links, no copies."""
    shutil.rmtree(backends, ignore_errors=True)
    folder = backends / "python"
    folder.mkdir(mode=0o700, parents=True)
    for part in (*bundle.backend.iterdir(), bundle.stub):
        (folder / part.name).symlink_to(part)


def environment(bundle: Bundle, base: Mapping[str, str]) -> dict[str, str]:
    """What the server and its stubs need on top of `base`."""
    libraries = [bundle.libraries, *([bundle.python_libraries] if bundle.python_libraries else [])]
    env = dict(base)
    # The stub's embedded interpreter finds site-packages through the `python3` that comes first.
    env["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", os.defpath)])
    env["LD_LIBRARY_PATH"] = os.pathsep.join(
        [*map(str, libraries), *filter(None, [base.get("LD_LIBRARY_PATH")])]
    )
    env.pop("PYTHONHOME", None)
    env.update(
        HF_HUB_OFFLINE="1",  # nothing is fetched at run time
        TOKENIZERS_PARALLELISM="false",  # one request, one thread: the cores are the engine's
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        PYTHONUNBUFFERED="1",
    )
    return env
