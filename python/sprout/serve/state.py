# SPDX-License-Identifier: Apache-2.0
"""What one stack keeps on disk and in shared memory, and the lock that makes it one stack."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from sprout.config import Config, private_folder
from sprout.errors import StackError


@dataclass(frozen=True)
class StackPaths:
    """Paths of one stack. `ensure` makes the folders, for this user alone (0700)."""

    state: Path
    shm: Path

    @classmethod
    def of(cls, cfg: Config) -> Self:
        return cls(cfg.stack.state.expanduser().absolute(), cfg.stack.shm.absolute())

    @property
    def stack_json(self) -> Path:
        return self.state / "stack.json"

    @property
    def config(self) -> Path:
        """The configuration in force, ports filled in: what the stack's processes read."""
        return self.state / "config.toml"

    @property
    def probe_token(self) -> Path:
        return self.state / "probe.token"

    @property
    def evaluate_token(self) -> Path:
        return self.state / "evaluate.token"

    @property
    def triton(self) -> Path:
        return self.state / "triton"

    @property
    def region_prefix(self) -> str:
        """Start of the names of this stack's Triton regions in /dev/shm; no other stack's."""
        return f"sproutpb-{hashlib.sha256(str(self.state).encode()).hexdigest()[:12]}."

    def log(self, process: str) -> Path:
        return self.state / "logs" / f"{process}.log"

    def pid(self, process: str) -> Path:
        return self.state / "pids" / f"{process}.pid"

    def ensure(self) -> None:
        """Raises StackError where a folder can't be made, or is somebody else's."""
        for folder in (self.state, self.shm, *(self.state / n for n in ("logs", "pids", "triton"))):
            private_folder(folder)


def evaluate_token_file(cfg: Config) -> Path:
    """Whoever can read it may ask as an evaluation: the operator's file, else the stack's own."""
    given = cfg.evaluate.schedule.token_file
    return StackPaths.of(cfg).evaluate_token if given is None else given.expanduser()


class StackLock:
    """Held for the life of a supervisor: the kernel lets go of it however the supervisor ends.

    A whole stack locks both folders, because two that share either would corrupt each other.
    Triton alone (`sprout triton`) locks its part of the state, which a whole stack locks too.
    """

    def __init__(self, paths: StackPaths, *, whole: bool = True) -> None:
        self._files = [(paths.triton / "lock", "state_dir")]
        if whole:
            self._files = [
                (paths.state / "lock", "state_dir"),
                (paths.shm / "lock", "shm_dir"),
                *self._files,
            ]
        self._held: list[int] = []

    def __enter__(self) -> Self:
        for file, key in self._files:
            fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._held.append(fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                owner = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
                self.__exit__()
                raise StackError(
                    f"this stack is already up (process {owner}, stack.{key} {file.parent}): "
                    "`sprout down` first, or give this one another name (--stack)"
                ) from None
            os.ftruncate(fd, 0)
            os.pwrite(fd, str(os.getpid()).encode(), 0)
        return self

    def __exit__(self, *_: object) -> None:
        while self._held:
            os.close(self._held.pop())


def lock_owner(paths: StackPaths) -> int | None:
    """Pid of the supervisor that holds the lock, None if nobody does."""
    try:
        fd = os.open(paths.state / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    else:
        return None
    finally:
        os.close(fd)


def write_private(path: Path, text: str) -> None:
    """Replaces a file in one step, mode 0600."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(fd, "w") as file:
        file.write(text)
    temporary.replace(path)


def read_stack(paths: StackPaths) -> dict[str, Any] | None:
    """`stack.json` of a stack that is up, None otherwise."""
    if lock_owner(paths) is None:
        return None
    try:
        content = json.loads(paths.stack_json.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def write_stack(paths: StackPaths, content: Mapping[str, Any]) -> None:
    write_private(paths.stack_json, json.dumps(content, indent=2) + "\n")


def dump_toml(cfg: Config) -> str:
    """A configuration as TOML that `sprout.config.load` reads back to the same one."""
    lines: list[str] = []

    def section(name: str, values: Mapping[str, Any]) -> None:
        lines.append(f"[{name}]")
        # JSON's strings, numbers, booleans and lists are TOML's too.
        lines.extend(
            f"{key} = {json.dumps(value, ensure_ascii=True)}"
            for key, value in values.items()
            if value is not None and not isinstance(value, Mapping)
        )
        for key, value in values.items():
            if isinstance(value, Mapping):
                section(f"{name}.{key}", value)

    for name, values in cfg.model_dump(mode="json").items():
        section(name, values)
    return "\n".join(lines) + "\n"


def remove_shared_memory(paths: StackPaths) -> None:
    """Takes the stack's folder in shared memory away, with everything in it."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(paths.shm)
