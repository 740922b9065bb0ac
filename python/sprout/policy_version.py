# SPDX-License-Identifier: Apache-2.0
"""The one number that board, receipt and outcome carry of a policy, and how people read it."""

from sprout.v1 import control_pb2 as pb


def version(policy: pb.Policy) -> int:
    """epoch << 32 | counter: grows with every policy, across restarts of the control plane."""
    return policy.epoch << 32 | policy.counter


def dotted(number: int) -> str:
    """epoch.counter of such a number."""
    return f"{number >> 32}.{number & 0xFFFFFFFF}"
