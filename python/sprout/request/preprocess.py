# SPDX-License-Identifier: Apache-2.0
"""From a client's text to token ids under a level: what the `preprocessing` model does.

Of a batch the hints are read first, since a tenant's or a task class's mix is found by its name;
then it gets one policy snapshot, is read and is encoded in one call. A request that fails fails
alone.
Tensors go in and out under their stock names, so that this runs without Triton.
"""

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sprout import directives
from sprout.errors import RequestError, SproutError
from sprout.request import hints, tensors, tokenizer, words
from sprout.request.counters import open_segment
from sprout.request.hints import Hints
from sprout.request.prompts import Prompter
from sprout.request.sampling import Sampling
from sprout.request.settings import PreprocessSettings
from sprout.request.tensors import Array, Tensors, one
from sprout.request.tokenizer import Piece, Tokenizer
from sprout_ext.board import BoardReader, BoardState, Choice, Flag
from sprout_ext.ledger import Counter, Role, Segment

log = logging.getLogger(__name__)

# Choice.state -> what is counted
_FALLBACKS = {
    int(BoardState.ABSENT): Counter.POLICY_ABSENT,
    int(BoardState.EXPIRED): Counter.POLICY_EXPIRED,
    int(BoardState.CORRUPT): Counter.POLICY_CORRUPT,
    int(BoardState.PACK): Counter.POLICY_PACK,
}
# As plain numbers: arithmetic on enumerations costs a microsecond.
_PINNED, _OFF, _FALLBACK = int(Flag.PINNED), int(Flag.OFF), int(Flag.FALLBACK)
_PAUSED, _PROBE = int(Flag.PAUSED), int(Flag.PROBE)
_EVALUATION = int(Flag.EVALUATION)


@dataclass(frozen=True, slots=True)
class Prompt:
    """One request: its input tensors, and its parameters as JSON text."""

    tensors: Tensors
    parameters: str = ""


@dataclass(slots=True)
class Prepared:
    """One request on its way to the engine."""

    outputs: dict[str, Array]  # by stock name, with a batch dimension of 1
    level: int
    flags: int
    choice: Choice | None
    sequence: int
    tenant: bytes
    task: bytes
    max_tokens: int
    opened_ns: int
    input_tokens: int = 0


class Preprocessor:
    """Without `board` and `segment` requests are served L0, unless pinned, and leave no flight."""

    def __init__(
        self,
        settings: PreprocessSettings,
        tokenizer: Tokenizer,
        *,
        board: BoardReader | None = None,
        segment: Segment | None = None,
        sampling: Sampling | None = None,
    ) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._pack = directives.pack(settings.pack)
        self._prompter = Prompter(
            tokenizer,
            self._pack,
            chat_template=settings.chat_template,
            accept_rendered=settings.accept_rendered,
            add_special_tokens=settings.add_special_tokens,
        )
        self._board = board
        self._segment = segment
        self._sampling = sampling
        self._sequence = 0
        # Postprocessing keeps a stream's state under its ticket. Where there is no flight, one that
        # belongs to no segment (tag 0) does; random, because other stubs hand out theirs.
        self._untracked = secrets.randbits(47)

    @classmethod
    def open(cls, settings: PreprocessSettings) -> "Preprocessor":
        """With the tokenizer, and shared memory as far as there is any."""
        loaded = tokenizer.load(settings.tokenizer_dir)
        directory = settings.shm_dir
        if directory is None:
            log.warning("sprout_shm_dir is not set: every request is served L0, without a receipt")
            return cls(settings, loaded)
        segment = open_segment(
            directory, Role.PREPROCESSING, settings.stub_index, settings.node_id, settings.flights
        )
        board = BoardReader(
            directory / "policy.board",
            directives.pack(settings.pack).hash,
            settings.node_id,
            segment.uid,
            settings.stub_index,
        )
        sampling = None
        if settings.sample_share > 0:
            sampling = Sampling.open(settings, board, segment.uid)
        return cls(settings, loaded, board=board, segment=segment, sampling=sampling)

    def prepare(self, batch: Sequence[Prompt]) -> list[Prepared | SproutError]:
        """One result per request, in order. Nothing is left behind for those that fail."""
        opened_ns = time.monotonic_ns()
        first = self._sequence
        self._sequence += len(batch)
        heard = [self._hints(prompt) for prompt in batch]
        results: list[Prepared | SproutError] = []
        prompts: list[list[Piece]] = []
        drawn = zip(batch, heard, self._choices(first, batch, heard), strict=True)
        for sequence, (prompt, hinted, choice) in enumerate(drawn, first):
            try:
                prepared, pieces = self._read(prompt, hinted, choice, sequence, opened_ns)
            except SproutError as error:
                results.append(error)
                continue
            results.append(prepared)
            prompts.append(pieces)
        encoded = iter(self._tokenizer.encode(prompts) if prompts else ())
        for result in results:
            if isinstance(result, Prepared):
                ids = next(encoded)
                result.input_tokens = len(ids)
                result.outputs["INPUT_ID"] = ids.reshape(1, -1)
                result.outputs["REQUEST_INPUT_LEN"] = np.array([[len(ids)]], np.int32)
        if self._segment:
            self._segment.count(Counter.REQUESTS, len(batch))
            if len(prompts) < len(batch):
                self._segment.count(Counter.REFUSED, len(batch) - len(prompts))
        return results

    def open_flight(self, prepared: Prepared) -> int:
        """A ticket for the request. The last step: after it nothing may fail."""
        ticket = 0
        choice = prepared.choice
        if self._segment and choice:
            ticket = self._segment.open_flight(
                level=prepared.level,
                flags=prepared.flags,
                policy_version=choice.version,
                policy_seed=choice.seed,
                sequence=prepared.sequence,
                tenant=prepared.tenant,
                task=prepared.task,
                input_tokens=prepared.input_tokens,
                max_tokens=prepared.max_tokens,
                opened_ns=prepared.opened_ns,
                intensity_g_per_kwh=choice.intensity_g_per_kwh,
                pue=choice.pue,
                embodied_g_per_s=choice.embodied_g_per_s,
            )
        if not ticket:
            self._untracked += 1
            ticket = self._untracked
        return ticket

    def close(self) -> None:
        """Leaves the segment to the agent, which settles what is still in flight."""
        if self._segment:
            self._segment.close()
        if self._sampling:
            self._sampling.close()

    def _hints(self, prompt: Prompt) -> Hints | RequestError:
        settings = self._settings
        try:
            return hints.read(
                prompt.parameters,
                self._pack,
                settings.hints,
                settings.probe_token,
                settings.evaluate_token,
            )
        except RequestError as error:
            return error

    def _choices(
        self, first: int, batch: Sequence[Prompt], heard: Sequence[Hints | RequestError]
    ) -> Sequence[Choice | None]:
        """Of one snapshot. What the hints say but for names is looked at later, in `_level`.

        Where prompts choose, it is by the client's own text: neither directive nor template.
        """
        board, names = self._board, None
        if board is None:
            return [None] * len(heard)
        if heard.count(hints.NONE) < len(heard):  # hardly ever
            names = [
                (hinted.tenant, hinted.task) if isinstance(hinted, Hints) else (b"", b"")
                for hinted in heard
            ]
        if board.by_prompt():
            texts = [_text(prompt.tensors) for prompt in batch]
            return board.choose_many(first, len(heard), names, texts)
        if names is None:
            return board.choose_many(first, len(heard))
        return board.choose_many(first, len(heard), names)

    def _read(
        self,
        prompt: Prompt,
        hinted: Hints | RequestError,
        choice: Choice | None,
        sequence: int,
        opened_ns: int,
    ) -> tuple[Prepared, list[Piece]]:
        settings, given = self._settings, prompt.tensors
        query = one(given, "QUERY")
        if len(query) > settings.max_prompt_bytes:
            raise RequestError(
                f"text_input has {len(query)} bytes, the limit is {settings.max_prompt_bytes}"
            )
        text = tensors.text(query, "text_input")
        max_tokens = int(one(given, "REQUEST_OUTPUT_LEN"))
        if max_tokens <= 0:
            raise RequestError(f"max_tokens must be at least 1, not {max_tokens}")
        if isinstance(hinted, RequestError):
            raise hinted
        outputs = self._outputs(given, max_tokens)
        level, flags = self._level(hinted, choice)
        pieces = self._prompter.pieces(text, level)
        prepared = Prepared(
            outputs,
            level,
            flags,
            choice,
            sequence,
            hinted.tenant,
            hinted.task,
            max_tokens,
            opened_ns,
        )
        if self._sampling is not None:
            self._sampling.look(bytes(query), prepared, allowed=hinted.sample)
        return prepared, pieces

    def _outputs(self, given: Tensors, max_tokens: int) -> dict[str, Array]:
        """All but the prompt. What nobody gave is left out: those who read it have it optional."""
        own, send = self._tokenizer, self._settings.send_end_id
        outputs: dict[str, Array | None] = {
            "REQUEST_OUTPUT_LEN": np.array([[max_tokens]], np.int32)
        }
        end_id = one(given, "END_ID") if "END_ID" in given else own.eos_id if send else None
        pad_id = one(given, "PAD_ID") if "PAD_ID" in given else own.pad_id if send else None
        if end_id is not None:
            outputs["OUT_END_ID"] = np.array([[end_id]], np.int32)
        if pad_id is not None:
            outputs["OUT_PAD_ID"] = np.array([[pad_id]], np.int32)
        if "STOP_WORDS_DICT" in given:
            outputs["STOP_WORDS_IDS"] = words.word_list(own, given["STOP_WORDS_DICT"], "stop_words")
        if "BAD_WORDS_DICT" in given:
            outputs["BAD_WORDS_IDS"] = words.word_list(own, given["BAD_WORDS_DICT"], "bad_words")
        if "EMBEDDING_BIAS_WORDS" in given or "EMBEDDING_BIAS_WEIGHTS" in given:
            nothing: Array = np.empty(0)
            outputs["EMBEDDING_BIAS"] = words.bias(
                own,
                given.get("EMBEDDING_BIAS_WORDS", nothing),
                given.get("EMBEDDING_BIAS_WEIGHTS", nothing),
            )
        return {name: array for name, array in outputs.items() if array is not None}

    def _level(self, hinted: Hints, choice: Choice | None) -> tuple[int, int]:
        """(level, flags). The kill switch stands above a pin, but for an evaluation's: its answers
        reach no client, and after a pause one wants to know."""
        if hinted.ignored and self._segment:
            self._segment.count(Counter.HINTS_IGNORED, hinted.ignored)
        if hinted.probe:
            return 0, _PROBE
        if hinted.evaluation:
            return hinted.level or 0, _EVALUATION
        if hinted.off:
            return 0, _OFF
        paused = choice is not None and choice.flags & _PAUSED
        if hinted.level is not None and not paused:
            return hinted.level, _PINNED
        if choice is None:
            return 0, _FALLBACK
        if choice.state and self._segment:
            self._segment.count(_FALLBACKS[choice.state])
        if choice.unscored and self._segment:
            self._segment.count(Counter.PROMPT_UNSCORED)
        return choice.level, choice.flags


def _text(given: Tensors) -> bytes:
    """The prompt's bytes. b"" where there is no single one: such a request is refused later."""
    query = given.get("QUERY")
    text = query.item() if query is not None and query.size == 1 else None
    return text if isinstance(text, bytes) else b""
