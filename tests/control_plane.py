# SPDX-License-Identifier: Apache-2.0
"""A control plane on loopback for tests: real server, real client, one process."""

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from waiting import PATIENCE_S, wait_for

from sprout.channel import connect
from sprout.config import CarbonConfig, Config, ControlConfig, StackConfig, TlsConfig
from sprout.control.run import run
from sprout.v1 import control_pb2 as pb
from sprout.v1 import control_pb2_grpc

WAIT_S = PATIENCE_S


def configure(
    state: Path, carbon: CarbonConfig | None = None, tls: TlsConfig | None = None, **control: Any
) -> Config:
    # The intensity is declared, so nothing is asked of any network.
    carbon = carbon or CarbonConfig(constant_g_per_kwh=300)
    settings = {"port": 0, "interval_s": 0.05, **control}
    return Config(
        stack=StackConfig(state_dir=state),
        carbon=carbon,
        control=ControlConfig(tls=tls or TlsConfig(), **settings),
    )


class Running:
    """A control plane on a thread of its own."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._main)

    def _main(self) -> None:
        try:
            self._loop.run_until_complete(run(self._config, self._stop))
            self._loop.run_until_complete(self._loop.shutdown_default_executor())
        except BaseException as error:
            self.error = error
        finally:
            self._loop.close()

    def start(self) -> str:
        """The address."""
        self._thread.start()
        port = self._config.stack.state / "control.port"
        wait_for(lambda: port.exists() or not self._thread.is_alive(), what="the port file")
        if not port.exists():
            raise self.error or RuntimeError("it ended without a port file")
        return f"{self._config.control.host}:{int(port.read_text())}"

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@contextmanager
def running(config: Config) -> Iterator[str]:
    control = Running(config)
    address = control.start()
    try:
        yield address
    finally:
        control.stop()


@contextmanager
def stub_of(address: str, tls: TlsConfig | None = None) -> Iterator[control_pb2_grpc.ControlStub]:
    with connect(address, tls) as channel:
        yield control_pb2_grpc.ControlStub(channel)


def first(stub: control_pb2_grpc.ControlStub) -> pb.Policy:
    """The policy in force, as soon as there is one."""
    stream = stub.WatchPolicy(pb.WatchPolicyRequest(node="t"), timeout=WAIT_S)
    policy = next(iter(stream))
    stream.cancel()
    return policy


def code_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    code = error.value.code()  # type: ignore[attr-defined]
    assert isinstance(code, grpc.StatusCode)
    return code


def openssl(*arguments: str, cwd: Path) -> None:
    subprocess.run(
        ["openssl", *arguments], cwd=cwd, check=True, capture_output=True, timeout=WAIT_S
    )


def make_authority(folder: Path) -> Path:
    """In the folder: a CA, certificates of a server and a client, those of a stranger, a token."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl command to make certificates with")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for ca, names in (("ca", ("server", "client")), ("other", ("stranger",))):
        openssl(
            *("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={ca}"),
            *("-keyout", f"{ca}.key", "-out", f"{ca}.pem"),
            cwd=folder,
        )
        for name in names:
            openssl(
                *("req", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key"),
                *("-out", f"{name}.csr"),
                cwd=folder,
            )
            (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
            openssl(
                *("x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key"),
                *("-CAcreateserial", "-days", "2", "-extfile", "san", "-out", f"{name}.pem"),
                cwd=folder,
            )
    (folder / "token").write_text("correct-horse-battery\n")
    (folder / "wrong").write_text("correct-horse-batterz\n")
    return folder


def tls_of(folder: Path, name: str, token: str | None = "token", ca: str = "ca") -> TlsConfig:
    return TlsConfig(
        certificate=folder / f"{name}.pem",
        key=folder / f"{name}.key",
        ca=folder / f"{ca}.pem",
        token_file=folder / token if token else None,
    )
