# SPDX-License-Identifier: Apache-2.0
"""The embedded engine's process: llama.cpp's server, through xllamacpp, until SIGTERM or SIGINT.

    python -m sprout.engines.llama_cpp --model FILE.gguf [--port N] [--slots N] …

Ready when GET /health says so; `--ready-file`, written after a warm-up, holds the address in JSON.
It ends when its parent does: nobody would supervise it, and its port would stay taken.
"""

import argparse
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from sprout.errors import ConfigError, EngineError, PrerequisiteError, SproutError

log = logging.getLogger("sprout.engine")

_PARENT_CHECK_S = 0.5
_WARM_UP = {"prompt": [1] * 32, "max_tokens": 4, "temperature": 0, "ignore_eos": True}
# HTTP threads beyond one per open stream: health checks and questions about tokens.
_MORE_THREADS = 8


def main(argv: Sequence[str] | None = None) -> int:
    """Serves until it is told to stop; 0 after that, 1 with a message on stderr if it can't."""
    args = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    parent = os.getppid()
    try:
        server = start(args)
        _warm_up(server)
    except SproutError as error:
        log.error("%s", error)
        return 1
    for signum in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signum, _leave)
    log.info("ready at %s", server.listening_address)
    if args.ready_file is not None:
        _write_ready(args.ready_file, server.listening_address)
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_S)
    log.info("the parent process is gone")
    _leave()


def start(args: argparse.Namespace) -> Any:
    """The server, its model loaded. Raises PrerequisiteError, ConfigError, EngineError."""
    # Read by libgomp as it is loaded. Its threads meet hundreds of times per token and spin while
    # they wait; on cores that others use too, one thread then spins away the time that the other
    # needs: 8 streams decoded 3 times faster on two busy cores without.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        import xllamacpp  # noqa: PLC0415 - an optional dependency, named if it is missing
    except ImportError as error:
        raise PrerequisiteError(
            f"xllamacpp, the embedded engine, is missing ({error}): "
            "install Sprout with its `local` extra (`make setup` does)"
        ) from None
    if not args.model.is_file():
        raise ConfigError(f"--model: no such file: {args.model}")
    threads = args.threads or len(os.sched_getaffinity(0))
    params = xllamacpp.CommonParams()
    params.model.path = str(args.model)
    params.hostnames = [args.host]
    params.port = args.port
    params.n_parallel = args.slots
    params.n_ctx = args.context_tokens * args.slots  # of all slots together
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_threads_http = args.slots + _MORE_THREADS
    params.cache_ram_mib = 0  # the default may take 8 GiB for old prompts
    params.fit_params = False  # what was asked for, or an error
    params.verbosity = 1  # errors
    log.info(
        "loading %s: %d slots of %d tokens, %d threads",
        *(args.model, args.slots, args.context_tokens, threads),
    )
    try:
        return xllamacpp.Server(params)
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"llama.cpp can't serve {args.model} (its reason is above): {error}"
        ) from None


def _warm_up(server: Any) -> None:
    """Reads the weights into memory and fills the compute buffers before a client pays for it."""
    begun = time.monotonic()
    answer = server.handle_completions(_WARM_UP)
    if "error" in answer:
        raise EngineError(f"the warm-up failed: {answer['error']}")
    log.info("warm-up took %.2f s", time.monotonic() - begun)


def _write_ready(path: Path, address: str) -> None:
    half = path.with_suffix(".part")
    half.write_text(json.dumps({"pid": os.getpid(), "url": address}) + "\n")
    half.replace(path)  # who waits for it never reads half of it


def _leave(*_: object) -> NoReturn:
    """At once. llama.cpp's own shutdown waits 30 s for open streams; their clients see the
    connection close either way, and nothing outlives this process.
    """
    logging.shutdown()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sprout.engines.llama_cpp", description="llama.cpp's server, supervised"
    )
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--slots", type=_positive, default=4, help="requests decoded at once")
    parser.add_argument(
        "--context-tokens", type=_positive, default=2048, help="prompt + answer, per slot"
    )
    parser.add_argument("--threads", type=int, default=0, help="0: every core")
    parser.add_argument("--ready-file", type=Path, help="written when it serves: pid and url")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(main())
