# SPDX-License-Identifier: Apache-2.0
"""Which requests' prompts are kept for evaluations, and what is known of each.

A draw of its own decides, on a stream of its own under a key that no policy changes: nothing of the
client's enters it, nor does the level. A refusal is always honoured. What is kept goes to a ring in
shared memory and nowhere else; the agent takes it from there.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

from sprout.errors import ConfigError
from sprout.request.settings import PreprocessSettings
from sprout_ext.board import BoardPolicy, BoardReader, Flag
from sprout_ext.ring import Ring
from sprout_ext.sampler import Sampler, Stream, fold_key

if TYPE_CHECKING:
    from sprout.request.preprocess import Prepared

_SAMPLE = int(Stream.SAMPLE)
_NO_POLICY = 0  # the seed in the key of these draws
# Sprout's own requests, which no client wrote.
_OURS = int(Flag.PROBE | Flag.EVALUATION)
# Nobody drew the level of these: it was certain.
_CERTAIN = int(Flag.PINNED | Flag.OFF | Flag.FALLBACK | Flag.PAUSED)


class Sampling:
    """Of one stub. `board` says under which policy a level was drawn."""

    def __init__(
        self,
        ring: Ring,
        board: BoardReader,
        *,
        share: float,
        key: int,
        refused_tenants: frozenset[bytes] = frozenset(),
    ) -> None:
        self._ring, self._board = ring, board
        self._sampler = Sampler((share, 1 - share), key)
        self._refused_tenants = refused_tenants

    @classmethod
    def open(cls, settings: PreprocessSettings, board: BoardReader, uid: int) -> Self:
        """With a ring of its own. uid: the stub's boot epoch. ConfigError: no ring can be made."""
        if settings.shm_dir is None:
            raise ConfigError("sprout_sample_share needs sprout_shm_dir")
        try:
            ring = Ring.create(
                settings.shm_dir,
                settings.stub_index,
                settings.node_id,
                slots=settings.sample_ring_prompts,
                prompt_bytes=settings.sample_prompt_bytes,
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"sprout_sample_share: no ring of prompts: {error}") from None
        key = fold_key(_NO_POLICY, settings.node_id, uid, settings.stub_index)
        return cls(
            ring,
            board,
            share=settings.sample_share,
            key=key,
            refused_tenants=settings.sample_refuse_tenants,
        )

    def look(self, text: bytes, prepared: "Prepared", *, allowed: bool) -> None:
        """Keep the prompt of a request whose level is known, if it is drawn and nobody refused.

        text: as the client sent it. allowed: false where the request refuses.
        """
        if self._sampler.draw(prepared.sequence, _SAMPLE) or prepared.flags & _OURS:
            return
        if not allowed or prepared.tenant in self._refused_tenants:
            self._ring.refused()
            return
        propensity = self._propensity(text, prepared)
        if propensity is None:
            self._ring.unknown()
            return
        self._ring.write(
            text,
            level=prepared.level,
            flags=prepared.flags,
            policy_version=prepared.choice.version if prepared.choice else 0,
            propensity=propensity,
            max_tokens=prepared.max_tokens,
            opened_ns=prepared.opened_ns,
            task=prepared.task,
            tenant=prepared.tenant,
        )

    def close(self) -> None:
        """Leaves the ring to the agent, which drains it."""
        self._ring.close()

    def _propensity(self, text: bytes, prepared: "Prepared") -> float | None:
        """How likely the request was to get its level; None: its policy, or whether there are
        weights for it, has just changed."""
        if prepared.flags & _CERTAIN or prepared.choice is None:
            return 1.0
        by_prompt = self._board.shares_by_prompt(text, prepared.tenant, prepared.task)
        policy = self._board.policy()
        if policy is None or policy.version != prepared.choice.version:
            return None
        likely = propensity(policy, prepared.level, prepared.tenant, prepared.task, by_prompt)
        return likely if likely > 0 else None


def propensity(
    policy: BoardPolicy,
    level: int,
    tenant: bytes = b"",
    task: bytes = b"",
    by_prompt: Sequence[float] | None = None,
) -> float:
    """P(a request of this tenant, task and prompt gets this level), over all that chance decides.

    The control group is drawn first, then the canary, then whether the prompt chooses, then the
    level: L0 is also what those get who are in neither of the first two. by_prompt: (levels,) how
    likely each level is where the prompt chooses; None: it never does.
    """
    drawn = (1 - policy.control_share) * policy.canary_share
    share = policy.shares_of(tenant, task)[level]
    if by_prompt is not None and policy.prompt and policy.prices_of(tenant, task):
        chooses = policy.prompt.share
        share = chooses * by_prompt[level] + (1 - chooses) * share
    # Fractions of one may sum to a little more.
    return min(drawn * share + (1 - drawn if level == 0 else 0.0), 1.0)
