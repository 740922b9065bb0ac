# SPDX-License-Identifier: Apache-2.0
"""What is judged: a prompt, and its answer at each level."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt of an evaluation."""

    id: str
    text: str
    task: str = ""  # class
    reference: str = ""  # the right answer, for judges that compare; "" = none is known
    # Inverse probability with which it came into the sample, up to a factor.
    weight: float = 1.0
    max_tokens: int = 0  # 0 = the evaluation's
    as_asked: bool = True  # the text is what the client sent; else as a redaction left it


@dataclass(frozen=True, slots=True)
class Answer:
    """What the engine said to a question at one level, and what that took."""

    level: int
    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    energy_joules: float = 0.0
    energy_estimated: bool = True
    carbon_g: float | None = None  # None: intensity not known
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    """A question with its score at every level.

    pairwise: scores[i] = 2 P(level i preferred to L0) over both orders, scores[0] = 1
    choice: 1 at the level that won, else 0
    exact: 1 where the answer is right, else 0
    In each case q_i / q_0 is the mean of scores[i] over that of scores[0].
    """

    question: Question
    scores: tuple[float, ...]  # (levels,)
    # Pairwise: (levels - 1, 2) what the judge said of levels 1 … with L0 shown first, and with L0
    # shown second: 1 the level won, 0.5 a tie, 0 L0 won. () with other methods.
    orders: tuple[tuple[float, float], ...] = ()
    output_tokens: tuple[int, ...] = ()  # (levels,) of the answers, for the length term
