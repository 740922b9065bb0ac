# SPDX-License-Identifier: Apache-2.0
"""How likely a request was to get each level, from the policy that drew it."""

from google.protobuf.message import DecodeError

from sprout.v1 import control_pb2 as pb


def served(message: bytes) -> tuple[float, ...] | None:
    """(levels,) probabilities over all arms that chance decides; None: no policy can be read.

    message: sprout.v1.Policy. The control group is drawn first, then the canary, then the level, so
    L0 is also what those get who are in neither. The draw does not look at the prompt: one row
    holds for all requests.
    """
    try:
        policy = pb.Policy.FromString(message)
    except DecodeError:
        return None
    if not policy.shares:
        return None
    if policy.paused:
        return (1.0, *(0.0 for _ in policy.shares[1:]))
    drawn = (1 - policy.control_share) * policy.canary_share
    shares = [drawn * share.share for share in policy.shares]
    return (shares[0] + 1 - drawn, *shares[1:])
