# SPDX-License-Identifier: Apache-2.0
"""A stub's own segment of the ledger."""

from pathlib import Path

from sprout.errors import ConfigError
from sprout_ext.ledger import Role, Segment


def open_segment(
    directory: Path, role: Role, stub_index: int, node_id: int, records: int = 0
) -> Segment:
    """A new segment with `records` flight records. ConfigError if it can't be made."""
    try:
        return Segment.create(directory, role, stub_index, node_id, records)
    except OSError as error:
        raise ConfigError(f"sprout_shm_dir: no ledger can be kept there: {error}") from None
