# SPDX-License-Identifier: Apache-2.0
"""Sprout: carbon-aware generation directives for LLM serving on NVIDIA Triton."""

__version__ = "0.1.0"
