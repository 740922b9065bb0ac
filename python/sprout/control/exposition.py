# SPDX-License-Identifier: Apache-2.0
"""Where Prometheus scrapes: an HTTP port of its own.

On loopback it is plain. Anywhere else it is mutual TLS with the certificates of `control.tls`, or a
ConfigError.
"""

from typing import Any

from prometheus_client import CollectorRegistry, start_http_server

from sprout.channel import certificates, connectable, is_loopback
from sprout.config import ControlConfig
from sprout.errors import ConfigError, StackError


class Exposition:
    """Raises ConfigError before anything listens, StackError if the port is taken."""

    def __init__(self, config: ControlConfig, registry: CollectorRegistry) -> None:
        host, tls = config.metrics_host, config.tls
        options: dict[str, Any] = {}
        if not is_loopback(host):
            if certificates(tls) is None:
                raise ConfigError(
                    f"control.metrics_host {host} is not loopback: control.tls needs certificate, "
                    "key and ca"
                )
            options = {
                "certfile": tls.certificate,
                "keyfile": tls.key,
                "client_cafile": tls.ca,
                "client_auth_required": True,
            }
        try:
            self._server, self._thread = start_http_server(
                config.metrics_port, host.strip("[]"), registry, **options
            )
        except (OSError, OverflowError) as error:  # ssl's errors are OSErrors
            raise StackError(
                f"can't serve metrics on {host}:{config.metrics_port} (control.metrics_host, "
                f"control.metrics_port): {error}"
            ) from None
        if options:
            # In the thread of the request, not in the one that accepts: a peer that says nothing
            # must not hold up the others.
            self._server.socket.do_handshake_on_connect = False  # type: ignore[attr-defined]
        self.port = self._server.server_port
        self.address = f"{connectable(host)}:{self.port}"

    def stop(self) -> None:
        """No new scrapes; returns within a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
