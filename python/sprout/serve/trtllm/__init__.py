# SPDX-License-Identifier: Apache-2.0
"""Deployments in NVIDIA's TensorRT-LLM containers: a repository, and all that starts it."""
