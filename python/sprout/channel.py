# SPDX-License-Identifier: Apache-2.0
"""gRPC channels of the control path: one place for credentials, tokens, what errors become, and how
messages stand in JSON.

On loopback a channel may be plain. Elsewhere it is mutual TLS with a bearer token; `connect` and
the control plane's server both refuse less.
"""

import ipaddress
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from sprout.config import ControlConfig, TlsConfig
from sprout.errors import ConfigError, ControlError

# 10,000 outcomes (the most that `agent.batch` allows) are about 2.5 MB.
MAX_MESSAGE_BYTES = 8 << 20


def is_loopback(host: str) -> bool:
    """Whether what listens on `host` can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def connectable(host: str) -> str:
    """What to write before ":port" to reach, on this machine, what listens on `host`."""
    host = host.strip("[]")
    host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"[{host}]" if ":" in host else host


def control_address(control: ControlConfig) -> str:
    """Where to connect to, of the host and port that the control plane listens on.

    Raises ConfigError if the port is left to the system: whoever connects must know it.
    """
    if control.port == 0:
        raise ConfigError("control.port must be set: 0 is for the control plane itself")
    return f"{connectable(control.host)}:{control.port}"


def read_secret(path: Path, key: str) -> bytes:
    """A file's content. ConfigError names the setting, never the content."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: can't read {path}: {error.strerror}") from None
    if not content.strip():
        raise ConfigError(f"{key}: {path} is empty")
    return content


def read_key(path: Path, key: str) -> str:
    """A secret that goes into a header, as `read_secret`: what a header can't hold, clients would
    quote in their errors.
    """
    text = read_secret(path, key).decode(errors="replace").strip()
    if not text.isascii() or not text.isprintable():
        raise ConfigError(f"{key}: {path} holds more than printable ASCII")
    return text


def read_token(tls: TlsConfig) -> str | None:
    """The bearer token, or None if no file is named. ConfigError if it can't be used."""
    if tls.token_file is None:
        return None
    return read_key(tls.token_file, "control.tls.token_file")


def certificates(tls: TlsConfig) -> tuple[bytes, bytes, bytes] | None:
    """(certificate chain, key, CA) in PEM, or None if none is named. Some of them: ConfigError."""
    named = {"certificate": tls.certificate, "key": tls.key, "ca": tls.ca}
    missing = [name for name, path in named.items() if path is None]
    if len(missing) == len(named):
        return None
    if missing:
        raise ConfigError(f"control.tls: {', '.join(missing)} missing; TLS needs all three")
    pem = [read_secret(path, f"control.tls.{name}") for name, path in named.items() if path]
    return pem[0], pem[1], pem[2]


class _Details(
    namedtuple(
        "_Details",
        ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression"),
    ),
    grpc.ClientCallDetails,
):
    """grpc wants an object with these attributes; it has no public constructor for one."""


class _Bearer(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):  # type: ignore[type-arg]
    """Adds the token to each call. Call credentials would need TLS even on loopback."""

    def __init__(self, token: str) -> None:
        self._header = ("authorization", f"Bearer {token}")

    def _with_token(self, details: grpc.ClientCallDetails) -> grpc.ClientCallDetails:
        metadata = [*(details.metadata or ()), self._header]
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )

    def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        return continuation(self._with_token(client_call_details), request)


def connect(address: str, tls: TlsConfig | None = None) -> grpc.Channel:
    """A channel to the control plane at "host:port". It connects when it is first used.

    Raises ConfigError if the address is not loopback and certificates or token are missing.
    """
    tls = tls or TlsConfig()
    host = address.rpartition(":")[0]
    pem, token = certificates(tls), read_token(tls)
    if not is_loopback(host) and (pem is None or token is None):
        raise ConfigError(
            f"{address} is not loopback: control.tls needs certificate, key, ca and token_file"
        )
    options = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        # A peer that vanished without a word (power loss, firewall) is noticed in 30 s. Allowed
        # without calls too would trip the server's ping limits; watchers always have a call open.
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # The control plane may be away for minutes, yet agents should be back soon after it is.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_http_proxy", 0),
    ]
    if pem is None:
        channel = grpc.insecure_channel(address, options)
    else:
        chain, key, ca = pem
        credentials = grpc.ssl_channel_credentials(ca, private_key=key, certificate_chain=chain)
        channel = grpc.secure_channel(address, credentials, options)
    return grpc.intercept_channel(channel, _Bearer(token)) if token else channel


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Calls inside raise ControlError ("what: code: details") where grpc raises RpcError."""
    try:
        yield
    except grpc.RpcError as error:
        code = error.code().name if hasattr(error, "code") else "UNKNOWN"
        details = error.details() if hasattr(error, "details") else str(error)
        raise ControlError(f"{what}: {code}: {details}") from None


def as_dict(message: Message) -> dict[str, Any]:
    """A message for JSON, under the names of the .proto file, with what is 0 or empty."""
    return MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
