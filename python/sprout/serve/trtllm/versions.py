# SPDX-License-Identifier: Apache-2.0
"""Which container carries which TensorRT-LLM, and for which of them Sprout renders.

Source: triton-inference-server/server, docs/introduction/compatibility.md.
"""

from dataclasses import dataclass

from sprout.engines.llmapi_load import WRITTEN_AGAINST
from sprout.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Container:
    """nvcr.io/nvidia/tritonserver:<tag>-trtllm-python-py3."""

    tag: str
    tensorrt_llm: str
    tensorrt: str
    python: str
    cuda: str

    @property
    def image(self) -> str:
        return f"nvcr.io/nvidia/tritonserver:{self.tag}-trtllm-python-py3"

    @property
    def supported(self) -> bool:
        """Its tensors are those that the model repository declares."""
        return self.tensorrt_llm == WRITTEN_AGAINST


_ROWS = (
    ("26.07 26.06 26.05 26.04", "1.2.1", "10.14.1.48", "3.12.3", "13.1.0.036"),
    ("26.03", "1.2.0", "10.14.1.48", "3.12.3", "13.1.0"),
    ("26.02 26.01 25.12", "1.1.0", "10.13.3.9", "3.12.3", "13.0.2"),
    ("25.11", "1.0.3.2510", "10.13.3.9", "3.12.3", "13.0.2"),
    ("25.10 25.09", "1.0.0", "10.11.0.33", "3.12.3", "12.9.1"),
    ("25.08", "0.21.0", "10.11.0.33", "3.12.3", "12.9.0"),
    ("25.07 25.06", "0.20.0", "10.10.0.31", "3.12.3", "12.9.0"),
    ("25.05", "0.19.0", "10.9.0.34", "3.12.3", "12.8.1"),
)
CONTAINERS = tuple(Container(tag, *parts) for tags, *parts in _ROWS for tag in tags.split())
DEFAULT = CONTAINERS[0].tag


def container(tag: str) -> Container:
    """ConfigError, with the matrix, for one that is not known or not rendered for."""
    for known in CONTAINERS:
        if known.tag != tag:
            continue
        if known.supported:
            return known
        raise ConfigError(
            f"container {tag} carries TensorRT-LLM {known.tensorrt_llm}; the tensors rendered here "
            f"are those of {WRITTEN_AGAINST}. Choose one of:\n{matrix()}"
        )
    raise ConfigError(f"container {tag!r} is not known. Choose one of:\n{matrix()}")


def matrix() -> str:
    """The containers that are rendered for, one a line."""
    return "\n".join(
        f"  {c.tag}: TensorRT-LLM {c.tensorrt_llm}, TensorRT {c.tensorrt}, Python {c.python}, "
        f"CUDA {c.cuda}"
        for c in CONTAINERS
        if c.supported
    )
