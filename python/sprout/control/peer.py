# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a call, as far as the connection proves it.

A client certificate names its holder. On loopback the system knows which user owns the other end
of the connection. Failing both, there is the address.
"""

import pwd
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import Any
from urllib.parse import unquote

MAX_WHO = 253
PROC_NET = Path("/proc/net")


@dataclass(frozen=True)
class Caller:
    who: str  # "CN=ops", "uid 1000 (ada)", "10.0.0.7"
    basis: str  # "certificate", "uid", "address"; "process": the control plane itself
    claimed: str = ""  # what the caller says of itself


ITSELF = Caller("control plane", "process")


def caller(context: Any, claimed: str) -> Caller:
    """Of a grpc call. It reads /proc: not for the event loop's thread."""
    names = context.auth_context().get("x509_common_name", ())
    if names:
        name = "".join(c if c.isprintable() else "?" for c in names[0].decode(errors="replace"))
        return Caller(f"CN={name}"[:MAX_WHO], "certificate", claimed)
    host, port = address_of(context.peer())
    uid = owner(host, port)
    if uid is not None:
        return Caller(_named(uid), "uid", claimed)
    return Caller(host[:MAX_WHO] or "unknown", "address", claimed)


def address_of(peer: str) -> tuple[str, int]:
    """(host, port) of grpc's "ipv4:127.0.0.1:4242" or "ipv6:%5B::1%5D:4242"; port 0: has none."""
    kind, _, rest = unquote(peer).partition(":")
    host, _, port = rest.rpartition(":")
    if kind not in ("ipv4", "ipv6") or not port.isdecimal():
        return peer, 0
    return host.strip("[]"), int(port)


def owner(host: str, port: int) -> int | None:
    """The user whose socket has this loopback address; None: not loopback, or not to be known."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    if not address.is_loopback or not port:
        return None
    four = isinstance(address, IPv4Address)
    # A client's socket of the IPv6 family may stand in the other table, with a mapped address.
    tables = [("tcp6", f"::ffff:{host}"), ("tcp", host)] if four else [("tcp6", host)]
    for table, local in tables:
        wanted = f"{_kernel_hex(local)}:{port:04X}"
        try:
            lines = (PROC_NET / table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            columns = line.split()
            # local address, remote address, state, …, uid; state 01: established
            if columns[1] == wanted and columns[3] == "01":
                return int(columns[7])
    return None


def _kernel_hex(host: str) -> str:
    """As /proc/net/tcp writes an address: words of 32 bits in this machine's byte order."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    packed = socket.inet_pton(family, host)
    return "".join(f"{word:08X}" for word in struct.unpack(f"={len(packed) // 4}I", packed))


def _named(uid: int) -> str:
    try:
        return f"uid {uid} ({pwd.getpwuid(uid).pw_name})"
    except KeyError:
        return f"uid {uid}"
