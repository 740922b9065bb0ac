# SPDX-License-Identifier: Apache-2.0
"""What an evaluation's messages may hold: the evaluator keeps to it, the control plane checks."""

MAX_CLASSES = 64  # with a q of their own
MAX_NAME = 64  # characters of an id or a judge
MAX_TEXT = 500  # characters of any other text
MAX_DRAW = 1000  # prompts of one call
MAX_BY_PROMPT = 1000  # judged prompts of a report, with what a predictor said of them
