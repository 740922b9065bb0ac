# SPDX-License-Identifier: Apache-2.0
"""Port 0 in the configuration means "a free one": chosen here, before anything starts.

Triton can't say which port the system gave it, and the others must know the engine's beforehand.
"""

import socket
from collections.abc import Collection

from sprout.config import Config
from sprout.errors import StackError

_KEYS = (
    ("triton", "http_port"),
    ("triton", "grpc_port"),
    ("triton", "metrics_port"),
    ("control", "port"),
    ("engine", "port"),
)
SECTIONS = frozenset(section for section, _ in _KEYS)


def resolve(cfg: Config, sections: Collection[str] = SECTIONS) -> Config:
    """The configuration with every port of these sections filled in, each of which is free.

    Raises StackError for one that is taken.
    """
    held: list[socket.socket] = []  # until all are chosen, so that none is given twice
    chosen: dict[str, dict[str, int]] = {}
    try:
        for section, key in _KEYS:
            if section not in sections:
                continue
            part = getattr(cfg, section)
            held.append(_bind(part.host, getattr(part, key), f"{section}.{key}"))
            chosen.setdefault(section, {})[key] = held[-1].getsockname()[1]
    finally:
        for sock in held:
            sock.close()
    parts = {name: getattr(cfg, name).model_copy(update=ports) for name, ports in chosen.items()}
    return cfg.model_copy(update=parts)


def _bind(host: str, port: int, key: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    # As the servers do: a port in TIME_WAIT is free, one that is listened on is not.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        if port:  # another socket may have bound with SO_REUSEADDR and not listen yet
            sock.listen(1)
    except OSError as error:
        sock.close()
        raise StackError(
            f"{key}: {host}:{port} can't be listened on ({error.strerror}); "
            f"stop what holds it, or set {key} (0 = any free port)"
        ) from None
    return sock
