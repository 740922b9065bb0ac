# SPDX-License-Identifier: Apache-2.0
"""Reading tensors that clients filled."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sprout.errors import RequestError

Array = NDArray[np.generic]
Tensors = Mapping[str, Array]  # by stock name, with the batch dimension


def one(tensors: Tensors, name: str) -> Any:
    """The single value of a tensor. RequestError if there are none or more."""
    tensor = tensors.get(name)
    if tensor is None:
        raise RequestError(f"{name} is missing")
    if tensor.size != 1:
        raise RequestError(
            f"{name} has {tensor.size} values: a request carries one prompt, send one per prompt"
        )
    return tensor.item()


def text(value: Any, name: str) -> str:
    """A string that came as bytes. RequestError if it is not UTF-8."""
    try:
        return bytes(value).decode()
    except UnicodeDecodeError as error:
        raise RequestError(f"{name} is not valid UTF-8 (byte {error.start})") from None


def texts(values: Array, name: str) -> Iterator[str]:
    """As `text`, of each value."""
    return (text(value, name) for value in values.flat)
