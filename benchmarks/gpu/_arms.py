# SPDX-License-Identifier: Apache-2.0
"""What is compared: no directive, the paper's policy, and the project's best."""

L0 = "L0"  # for everybody
MIX = "mix"  # the published program's, drawn
PROMPT = "prompt"  # by what a prompt says, and for a tenth drawn from the mix
ARMS = (L0, MIX, PROMPT)
SAYS = {L0: "L0", MIX: "the paper's policy", PROMPT: "levels by prompt"}
