# SPDX-License-Identifier: Apache-2.0
"""An interpreter that stands for vLLM's: `-m vllm.entrypoints.cli.main serve` is the tests' server.

As much of vLLM's command line as the service uses. On SIGUSR1 its engine is dead, as the server of
vLLM 0.20.2 shows it: `GET /health` answers 503, open streams end with an error event, new
completions get 500 with the same words, and a second later the server ends itself with status 0.
On SIGUSR2 its engine hangs, and the server does not know. As vLLM's it has a core, a process in its
session, here one that does not heed SIGTERM and does not end with it.
"""

import sys
from pathlib import Path

MAIN = """
import os, signal, subprocess, sys, threading
from multiprocessing import resource_tracker, shared_memory
from completions_server import DyingServer
flags = dict(zip(sys.argv[3::2], sys.argv[4::2]))
assert sys.argv[1] == "serve", sys.argv
core = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(float('{}'))"
subprocess.Popen([sys.executable, "-I", "-S", "-c", core.format(os.environ["LIFE_S"])])
memory = shared_memory.SharedMemory(create=True, size=4096)
resource_tracker.unregister(memory._name, "shared_memory")  # as where the tracker is killed too
print(f"segment={memory.name}", "offline=" + os.environ["HF_HUB_OFFLINE"], flush=True)
token_s = float(os.environ["TOKEN_S"])
server = DyingServer(int(flags["--port"]), token_s, max_model_len=int(flags["--max-model-len"]))
signal.signal(signal.SIGUSR1, lambda *_: server.engine_dies())
signal.signal(signal.SIGUSR2, lambda *_: server.engine_hangs())
server.ended.wait(float(os.environ["LIFE_S"]))
os._exit(0)
"""


def interpreter(folder: Path, *, token_s: float = 0.0, life_s: float = 60.0) -> Path:
    """Its environment has a package `vllm`, 1.2.3. life_s: a server that is forgotten ends."""
    package = folder / "site" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    for inner in (package, package.parent, package.parent.parent):
        (inner / "__init__.py").touch()
    (package / "main.py").write_text(MAIN)
    metadata = folder / "site" / "vllm-1.2.3.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 1.2.3\n")
    (metadata / "top_level.txt").write_text("vllm\n")
    # `-I` would keep a PYTHONPATH out.
    script = (
        "#!/bin/sh\n"
        f'export PYTHONPATH="{folder / "site"}:{Path(__file__).parent}"\n'
        f"export TOKEN_S={token_s} LIFE_S={life_s}\n"
        '[ "$1" = -I ] && shift\n'
        f'exec "{sys.executable}" "$@"\n'
    )
    file = folder / "python"
    file.write_text(script)
    file.chmod(0o700)
    return file
