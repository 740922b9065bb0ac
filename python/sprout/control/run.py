# SPDX-License-Identifier: Apache-2.0
"""The control plane's process: store, feed, loop and server together, until told to stop.

While it serves, `<state>/control.port` holds the port that is bound (one decimal number, one line):
with `control.port = 0` the system chooses it. It appears once calls are answered and goes when the
process stops cleanly; after a kill -9 it stays, so whoever starts the process and waits for the
file removes an old one first. `<state>/control.lock` keeps a second control plane off the store.
"""

import asyncio
import fcntl
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sprout.carbon import Feed, make_chain
from sprout.config import Config, no_core_dumps, private_folder
from sprout.control.exposition import Exposition
from sprout.control.loop import Loop
from sprout.control.metrics import registry_of
from sprout.control.overview import Overview
from sprout.control.prompts import forget_in_time
from sprout.control.reservoir import Reservoir
from sprout.control.server import Server
from sprout.control.service import Service
from sprout.control.store import Store
from sprout.errors import StackError

LOG = logging.getLogger(__name__)

GRACE_S = 1.0


def serve(config: Config) -> None:
    """Serve until SIGTERM or SIGINT; stops within two seconds of it.

    Raises ConfigError (a setting is wrong), StackError (port or state are taken), ControlError
    (the store can't be used).
    """
    asyncio.run(_until_signalled(config))


async def _until_signalled(config: Config) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await run(config, stop)


async def run(config: Config, stop: asyncio.Event) -> None:
    """Serve until `stop` is set. Raises as `serve` does."""
    state = config.stack.state
    private_folder(state)
    with _sole(state / "control.lock"):
        (state / "control.port").unlink(missing_ok=True)  # of one that was killed
        store = Store(state / "control.sqlite")
        try:
            await _run(config, store, state / "control.port", stop)
        finally:
            store.close()


async def _run(config: Config, store: Store, port_file: Path, stop: asyncio.Event) -> None:
    control, carbon = config.control, config.carbon
    feed = Feed(
        make_chain(carbon),
        store,
        range_mode=control.range_mode,
        range_hours=control.range_hours,
        range_min_hours=control.range_min_hours,
        fallback=carbon.fallback,
        history_hours=control.bank.hours,  # operators may ask for a budget at any time
    )
    loop = Loop(config, store, feed)
    overview = Overview(feed.series[0], loop, store)
    registry, counted = registry_of(loop, store, overview, asyncio.get_running_loop())
    sampling, reservoir = config.evaluate.sampling, None
    if sampling.share > 0:
        no_core_dumps()
        reservoir = Reservoir(sampling.reservoir_prompts, sampling.retention_hours * 3600)
        loop.evaluations.tellers.append(reservoir.tell)
        loop.due.prompts = reservoir.size
    server = Server(control, Service(loop, store, overview, counted, reservoir))
    exposition = Exposition(control, registry)
    overview.metrics_address = exposition.address
    await server.start()
    task = asyncio.create_task(loop.run())
    stopped = asyncio.create_task(stop.wait())
    forgetting = asyncio.create_task(forget_in_time(reservoir))
    try:
        _write(port_file, f"{server.port}\n")
        LOG.info("control plane on %s:%d", control.host, server.port)
        LOG.info("metrics on %s", exposition.address)
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()  # it never returns: this raises what ended it
    finally:
        port_file.unlink(missing_ok=True)
        loop.publisher.close()
        await asyncio.gather(server.stop(GRACE_S), asyncio.to_thread(exposition.stop))
        for each in (task, stopped, forgetting):
            each.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await each
    LOG.info("control plane stopped")


@contextmanager
def _sole(path: Path) -> Iterator[None]:
    """Hold the lock, which the system frees however this process ends."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StackError(f"another control plane runs on {path.parent}") from None
        yield


def _write(path: Path, text: str) -> None:
    """At once or not at all: readers never see half a number."""
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(text)
    fresh.replace(path)


if __name__ == "__main__":
    from sprout.config import load

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(load())
