# SPDX-License-Identifier: Apache-2.0
"""A control plane for the tests of a module that leave no trace on it."""

from collections.abc import Iterator

import pytest
from control_plane import configure, first, running, stub_of

from sprout.v1.control_pb2_grpc import ControlStub


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address."""
    with running(configure(tmp_path_factory.mktemp("state"))) as address:
        yield address


@pytest.fixture(scope="module")
def stub(shared: str) -> Iterator[ControlStub]:
    with stub_of(shared) as stub:
        first(stub)
        yield stub
