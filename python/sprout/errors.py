# SPDX-License-Identifier: Apache-2.0
"""Every error that Sprout raises, in one tree.

SproutError
├── ConfigError            a setting is wrong; the message names the key and the remedy
├── PrerequisiteError      something this machine lacks; the message names the remedy
├── RequestError           the client's fault: this request fails, alone
│   ├── PromptTooLong      does not fit the engine's context
│   └── UnsupportedOption  an option that this engine can't honour, named
├── RequestCancelled       the client took its request back
├── EngineError            the engine's fault
│   ├── EngineUnavailable  not reachable, or it went away under the request
│   └── EngineBusy         slots and queue are full: try again later
├── FeedError              a carbon source gave no usable value
│   ├── FeedUnauthorized   its key is refused
│   │   └── FeedForbidden   its key is known, and does not cover what was asked for
│   ├── FeedZoneError      it does not know the zone, or answered for another
│   ├── FeedRateLimited    it was asked too often
│   ├── FeedUnavailable    no answer, or an error of its own
│   └── FeedMalformed      an answer that is not what it promises
├── EvaluationError        an evaluation can't be run, kept or reported
├── JudgeError             no judge can be had: refused, not there, or too often not heard
├── InfeasibleError        the optimizer has no feasible policy
├── PredictorError         a predictor can't be fitted or read, or is no better than class means
├── SpoolError             outcomes can't be kept on disk
├── ControlError           the control plane can't be reached, or refused
├── PolicyError            a policy that can't be applied; the one in force stays
└── StackError             a process of the stack did not start, stop or stay up

Vendor exceptions are translated where they enter; none of theirs crosses a package border.
"""


class SproutError(Exception):
    """Base of all."""


class ConfigError(SproutError):
    """A setting is wrong; the message names the key and the remedy."""


class PrerequisiteError(SproutError):
    """Something that this machine lacks; the message names the remedy."""


class RequestError(SproutError):
    """The client's fault: this request fails, alone."""


class PromptTooLong(RequestError):  # noqa: N818 - reads as what happened
    """The prompt does not fit the engine's context; the message holds the limit."""


class UnsupportedOption(RequestError):  # noqa: N818
    """A generation option that this engine can't honour, named."""


class RequestCancelled(SproutError):  # noqa: N818
    """The client took its request back."""


class EngineError(SproutError):
    """The engine's fault."""


class EngineUnavailable(EngineError):  # noqa: N818
    """The engine is not reachable, or went away under the request."""


class EngineBusy(EngineError):  # noqa: N818
    """Slots and queue are full."""


class FeedError(SproutError):
    """A carbon source gave no usable value."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s  # it asked not to be asked again before


class FeedUnauthorized(FeedError):  # noqa: N818 - reads as what happened
    """The source's key is refused."""


class FeedForbidden(FeedUnauthorized):
    """The source knows the key, and it does not cover what was asked for: a plan, a region."""


class FeedZoneError(FeedError):
    """The source does not know the zone, or answered for another one."""


class FeedRateLimited(FeedError):  # noqa: N818
    """The source was asked too often."""


class FeedUnavailable(FeedError):  # noqa: N818
    """No answer within the time-out, or an error of the source's own."""


class FeedMalformed(FeedError):  # noqa: N818
    """An answer that is not what the source promises: shape, unit, size, time."""


class EvaluationError(SproutError):
    """An evaluation can't be run, kept or reported; the message says why."""


class JudgeError(SproutError):
    """The judge of an evaluation can't be used; the message says why, and what helps."""


class InfeasibleError(SproutError):
    """No feasible policy; the message names the constraint."""


class PredictorError(SproutError):
    """A predictor can't be fitted, is no better than class means, or its file is malformed."""


class SpoolError(SproutError):
    """Outcomes can't be kept on disk."""


class ControlError(SproutError):
    """The control plane can't be reached, or refused the call."""


class PolicyError(SproutError):
    """A policy that can't be applied; the message says what is wrong with it."""


class StackError(SproutError):
    """A process of the stack did not start, stop or stay up."""
