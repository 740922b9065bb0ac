# SPDX-License-Identifier: Apache-2.0
"""`[stack]`: where a stack lives."""

import os
from pathlib import Path

from pydantic import Field

from sprout.config.section import Section


class StackConfig(Section):
    """Where one stack lives; several run side by side under different names and ports."""

    name: str = Field("default", pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    state_dir: Path | None = None  # default: $XDG_STATE_HOME/sprout/<name>
    shm_dir: Path | None = None  # default: /dev/shm/sprout-<uid>-<name>; must be memory-backed

    @property
    def state(self) -> Path:
        """Database, spool, logs, pid files, the rendered model repository."""
        if self.state_dir is not None:
            return self.state_dir
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return Path(home) / "sprout" / self.name

    @property
    def shm(self) -> Path:
        """Policy board, flight ledger, energy clock."""
        return self.shm_dir or Path("/dev/shm") / f"sprout-{os.getuid()}-{self.name}"  # noqa: S108
