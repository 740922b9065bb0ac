# SPDX-License-Identifier: Apache-2.0
"""The scorer's weights that policies name: from the control plane to files beside the board.

A file is there, whole and verified, before the board names it. Until then, and where it can't be
had, the policy is in force without its prompt part: no policy waits for weights, least of all a
pause.
"""

import hashlib
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

import grpc

from sprout.agent.relay import backoff_s, describe
from sprout.errors import PolicyError
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlStub
from sprout_ext import weights
from sprout_ext.board import BoardPolicy, weights_name

log = logging.getLogger(__name__)

FETCH_TIMEOUT_S = 10.0
LONGEST_BACKOFF_S = 60.0  # the control plane may not have them for long, and they are not small
NEW = ".new"  # the end of a name while the file is being written
KEPT = 4  # policies whose weights stay: readers may still be at the one before


class _Known(NamedTuple):
    """A verified file."""

    identity: tuple[int, int, int]  # inode, size, time of change, ns
    levels: int


class Weights:
    """One thread calls `run`; the rest may be called from any."""

    def __init__(self, stub: ControlStub, directory: Path) -> None:
        self._stub = stub
        self._directory = directory
        self._changed = threading.Condition()  # guards what is below
        self._named: OrderedDict[int, str] = OrderedDict()  # by version of the last few policies
        self._known: dict[str, _Known] = {}
        self._wanted = ""  # digest of what is to be fetched; "" = nothing
        self._why = ""  # it is not there yet
        self.failed = 0  # tries to fetch

    def lacking(self, policy: BoardPolicy) -> str:
        """Why the policy can't have its prompt part now; "" = it can, or it has none.

        What is missing is fetched by `run`. Files that none of the last few policies names go.
        """
        digest = policy.prompt.weights if policy.prompt else ""
        with self._changed:
            self._name(policy.version, digest)
            levels = self._verified(digest) if digest else None
            wanted = digest if levels is None else ""
            if wanted != self._wanted:
                self._wanted, self._why = wanted, "they are being fetched"
                self._changed.notify_all()
            if not digest:
                return ""
            why = self._why
        if levels is None:
            return f"weights {digest[:12]}: {why}"
        if levels != len(policy.shares):
            return f"weights {digest[:12]} are of {levels} levels, not of {len(policy.shares)}"
        return ""

    def run(self, stop: threading.Event, came: Callable[[], None]) -> None:
        """Fetch what is wanted until `stop`; `came` is called when it is there."""
        attempt, last = 0, ""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._wanted or stop.is_set())
                digest = self._wanted
            if stop.is_set():
                return
            attempt, last = (attempt if digest == last else 0), digest
            try:
                self._fetch(digest)
            except PolicyError as error:
                if stop.is_set():
                    return
                level = logging.WARNING if attempt == 0 else logging.DEBUG
                log.log(level, "weights %s: %s; trying again", digest[:12], error)
                self.failed += 1
                self._wait(digest, str(error), backoff_s(attempt, LONGEST_BACKOFF_S), stop)
                attempt += 1
            else:
                log.info("weights %s are here", digest[:12])
                with self._changed:
                    if self._wanted == digest:
                        self._wanted = ""
                came()

    def wake(self) -> None:
        """Let `run` see that it was told to stop."""
        with self._changed:
            self._changed.notify_all()

    def _wait(self, digest: str, why: str, seconds: float, stop: threading.Event) -> None:
        """Until it is time for another try, or something else is wanted."""
        with self._changed:
            if self._wanted == digest:
                self._why = why
            self._changed.wait_for(lambda: stop.is_set() or self._wanted != digest, seconds)

    def _fetch(self, digest: str) -> None:
        """PolicyError: they can't be had, are not what was asked for, or can't be kept; and why."""
        request = pb.GetWeightsRequest(sha256=digest)
        try:
            data = self._stub.GetWeights(request, timeout=FETCH_TIMEOUT_S).weights
        except grpc.RpcError as error:
            raise PolicyError(describe(error)) from None
        _levels(data, digest)
        path = self._path(digest)
        beside = path.with_name(path.name + NEW)
        try:
            beside.unlink(missing_ok=True)  # of one who was killed
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(beside, flags, 0o600), "wb") as file:
                file.write(data)
            beside.replace(path)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise PolicyError(f"can't write {path}: {error.strerror}") from None

    def _name(self, version: int, digest: str) -> None:
        """This policy is the latest. Only a change of what is named is worth a look at the disk."""
        before = set(self._named.values())
        fresh = version not in self._named
        self._named[version] = digest
        self._named.move_to_end(version)
        while len(self._named) > KEPT:
            self._named.popitem(last=False)
        named = set(self._named.values())
        if not fresh or (before == named and len(self._named) > 1):
            return
        self._known = {known: self._known[known] for known in named & self._known.keys()}
        keep = {weights_name(one) + end for one in named for end in ("", NEW)}
        with suppress(OSError):  # no policy, and no pause above all, waits for tidiness
            for path in self._directory.glob(weights_name("*")):
                if path.name not in keep:
                    path.unlink()

    def _verified(self, digest: str) -> int | None:
        """The levels of the file, which is read only if it is another than it was; None: no such
        file, or not what its name says."""
        path = self._path(digest)
        try:
            status = path.lstat()
            identity = (status.st_ino, status.st_size, status.st_mtime_ns)
            known = self._known.get(digest)
            if known is None or known.identity != identity:
                if not S_ISREG(status.st_mode) or status.st_size > weights.MOST_WEIGHTS:
                    return None
                known = _Known(identity, _levels(path.read_bytes(), digest))
                self._known[digest] = known
        except (OSError, PolicyError):
            return None
        return known.levels

    def _path(self, digest: str) -> Path:
        return self._directory / weights_name(digest)


def _levels(data: bytes, digest: str) -> int:
    """How many levels weights are of. PolicyError: not those of the digest, or none at all."""
    if len(data) > weights.MOST_WEIGHTS:
        raise PolicyError(f"{len(data)} bytes, at most {weights.MOST_WEIGHTS}")
    if (found := hashlib.sha256(data).hexdigest()) != digest:
        raise PolicyError(f"what came has the SHA-256 {found[:12]}…, {len(data)} bytes")
    try:
        return weights.scorer(data).levels
    except ValueError as error:
        raise PolicyError(f"no scorer takes them: {error}") from None
