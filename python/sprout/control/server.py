# SPDX-License-Identifier: Apache-2.0
"""The gRPC server: where it listens, whom it lets in, health and reflection.

On loopback a plain server is allowed. On anything else it is mutual TLS plus a bearer token, or a
ConfigError.
"""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from sprout.channel import MAX_MESSAGE_BYTES, certificates, is_loopback, read_token
from sprout.config import ControlConfig
from sprout.errors import ConfigError, StackError
from sprout.v1 import control_pb2, control_pb2_grpc

SERVICE = control_pb2.DESCRIPTOR.services_by_name["Control"].full_name

OPTIONS = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Without it a second server on the same port is silently given half of the connections.
    ("grpc.so_reuseport", 0),
    # A watcher that vanished without a word is dropped; watchers may ping as often as they do.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
]
MAX_CALLS = 2_000  # at once; a watcher holds one


class _TokenCheck(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in stubs alone
    """Refuses calls without the token: each of them, health and reflection included."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}".encode()

        async def refuse(request: Any, context: Any) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "no valid bearer token")

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: Any
    ) -> Any:
        for key, value in handler_call_details.invocation_metadata or ():
            given = value if isinstance(value, bytes) else value.encode()
            if key == "authorization" and hmac.compare_digest(given, self._expected):
                return await continuation(handler_call_details)
        return self._refusal


class Server:
    """Raises ConfigError before anything listens, StackError if the port is taken."""

    def __init__(self, config: ControlConfig, servicer: control_pb2_grpc.ControlServicer) -> None:
        pem, token = certificates(config.tls), read_token(config.tls)
        if not is_loopback(config.host) and (pem is None or token is None):
            raise ConfigError(
                f"control.host {config.host} is not loopback: control.tls needs certificate, key, "
                "ca and token_file"
            )
        self._server = grpc.aio.server(
            interceptors=[_TokenCheck(token)] if token else [],
            options=OPTIONS,
            maximum_concurrent_rpcs=MAX_CALLS,
        )
        control_pb2_grpc.add_ControlServicer_to_server(servicer, self._server)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        host = f"[{config.host}]" if ":" in config.host.strip("[]") else config.host
        self.port = self._bind(f"{host}:{config.port}", pem)

    def _bind(self, address: str, pem: tuple[bytes, bytes, bytes] | None) -> int:
        try:
            if pem is None:
                port = self._server.add_insecure_port(address)
            else:
                chain, key, ca = pem
                credentials = grpc.ssl_server_credentials(
                    [(key, chain)], root_certificates=ca, require_client_auth=True
                )
                port = self._server.add_secure_port(address, credentials)
        except RuntimeError:
            port = 0
        if port == 0:
            raise StackError(
                f"can't listen on {address}: the port is taken, the address is not this machine's, "
                "or certificate and key don't belong together"
            )
        return port

    async def start(self) -> None:
        await self._server.start()
        serving = health._health_pb2.HealthCheckResponse.SERVING  # type: ignore[attr-defined]
        for name in ("", SERVICE):
            await self._health.set(name, serving)

    async def stop(self, grace_s: float) -> None:
        """No new calls at once; those that run have `grace_s` to end."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
