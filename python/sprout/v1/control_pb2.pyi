# SPDX-License-Identifier: Apache-2.0
import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FactorType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FACTOR_TYPE_UNSPECIFIED: _ClassVar[FactorType]
    FACTOR_TYPE_DIRECT: _ClassVar[FactorType]
    FACTOR_TYPE_LIFECYCLE: _ClassVar[FactorType]

class Signal(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SIGNAL_UNSPECIFIED: _ClassVar[Signal]
    SIGNAL_AVERAGE: _ClassVar[Signal]
    SIGNAL_MARGINAL: _ClassVar[Signal]

class Ending(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENDING_UNSPECIFIED: _ClassVar[Ending]
    ENDING_DELIVERED: _ClassVar[Ending]
    ENDING_ABANDONED: _ClassVar[Ending]
    ENDING_CANCELLED: _ClassVar[Ending]
    ENDING_FAILED: _ClassVar[Ending]
    ENDING_LOST: _ClassVar[Ending]

class FeedbackKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEEDBACK_KIND_UNSPECIFIED: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_THUMBS_UP: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_THUMBS_DOWN: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_REGENERATE: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_RETRY: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_TRUNCATED: _ClassVar[FeedbackKind]
FACTOR_TYPE_UNSPECIFIED: FactorType
FACTOR_TYPE_DIRECT: FactorType
FACTOR_TYPE_LIFECYCLE: FactorType
SIGNAL_UNSPECIFIED: Signal
SIGNAL_AVERAGE: Signal
SIGNAL_MARGINAL: Signal
ENDING_UNSPECIFIED: Ending
ENDING_DELIVERED: Ending
ENDING_ABANDONED: Ending
ENDING_CANCELLED: Ending
ENDING_FAILED: Ending
ENDING_LOST: Ending
FEEDBACK_KIND_UNSPECIFIED: FeedbackKind
FEEDBACK_KIND_THUMBS_UP: FeedbackKind
FEEDBACK_KIND_THUMBS_DOWN: FeedbackKind
FEEDBACK_KIND_REGENERATE: FeedbackKind
FEEDBACK_KIND_RETRY: FeedbackKind
FEEDBACK_KIND_TRUNCATED: FeedbackKind

class GetPolicyRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class GetWeightsRequest(_message.Message):
    __slots__ = ("sha256",)
    SHA256_FIELD_NUMBER: _ClassVar[int]
    sha256: str
    def __init__(self, sha256: _Optional[str] = ...) -> None: ...

class GetWeightsResponse(_message.Message):
    __slots__ = ("weights",)
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    weights: bytes
    def __init__(self, weights: _Optional[bytes] = ...) -> None: ...

class WatchPolicyRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("epoch", "counter", "seed", "issued_at", "ttl", "pack", "pack_hash", "shares", "control_share", "canary_share", "paused", "intensity", "pue", "embodied_g_per_s", "explanation", "mixes", "prompt")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COUNTER_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    ISSUED_AT_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    PACK_HASH_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SHARE_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_FIELD_NUMBER: _ClassVar[int]
    PUE_FIELD_NUMBER: _ClassVar[int]
    EMBODIED_G_PER_S_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    MIXES_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    counter: int
    seed: int
    issued_at: _timestamp_pb2.Timestamp
    ttl: _duration_pb2.Duration
    pack: str
    pack_hash: int
    shares: _containers.RepeatedCompositeFieldContainer[LevelShare]
    control_share: float
    canary_share: float
    paused: bool
    intensity: Intensity
    pue: float
    embodied_g_per_s: float
    explanation: Explanation
    mixes: _containers.RepeatedCompositeFieldContainer[Mix]
    prompt: PromptPolicy
    def __init__(self, epoch: _Optional[int] = ..., counter: _Optional[int] = ..., seed: _Optional[int] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pack: _Optional[str] = ..., pack_hash: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., control_share: _Optional[float] = ..., canary_share: _Optional[float] = ..., paused: _Optional[bool] = ..., intensity: _Optional[_Union[Intensity, _Mapping]] = ..., pue: _Optional[float] = ..., embodied_g_per_s: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., mixes: _Optional[_Iterable[_Union[Mix, _Mapping]]] = ..., prompt: _Optional[_Union[PromptPolicy, _Mapping]] = ...) -> None: ...

class PromptPolicy(_message.Message):
    __slots__ = ("weights", "share", "g_per_joule", "points", "expected_preference", "expected_g_per_request", "expected_shares", "basis", "least")
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    G_PER_JOULE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SHARES_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    weights: str
    share: float
    g_per_joule: _containers.RepeatedScalarFieldContainer[float]
    points: _containers.RepeatedCompositeFieldContainer[PricePoint]
    expected_preference: float
    expected_g_per_request: float
    expected_shares: _containers.RepeatedScalarFieldContainer[float]
    basis: str
    least: float
    def __init__(self, weights: _Optional[str] = ..., share: _Optional[float] = ..., g_per_joule: _Optional[_Iterable[float]] = ..., points: _Optional[_Iterable[_Union[PricePoint, _Mapping]]] = ..., expected_preference: _Optional[float] = ..., expected_g_per_request: _Optional[float] = ..., expected_shares: _Optional[_Iterable[float]] = ..., basis: _Optional[str] = ..., least: _Optional[float] = ...) -> None: ...

class PromptPrices(_message.Message):
    __slots__ = ("g_per_joule", "points", "expected_preference", "expected_g_per_request", "expected_shares", "least")
    G_PER_JOULE_FIELD_NUMBER: _ClassVar[int]
    POINTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SHARES_FIELD_NUMBER: _ClassVar[int]
    LEAST_FIELD_NUMBER: _ClassVar[int]
    g_per_joule: _containers.RepeatedScalarFieldContainer[float]
    points: _containers.RepeatedCompositeFieldContainer[PricePoint]
    expected_preference: float
    expected_g_per_request: float
    expected_shares: _containers.RepeatedScalarFieldContainer[float]
    least: float
    def __init__(self, g_per_joule: _Optional[_Iterable[float]] = ..., points: _Optional[_Iterable[_Union[PricePoint, _Mapping]]] = ..., expected_preference: _Optional[float] = ..., expected_g_per_request: _Optional[float] = ..., expected_shares: _Optional[_Iterable[float]] = ..., least: _Optional[float] = ...) -> None: ...

class PricePoint(_message.Message):
    __slots__ = ("fraction", "g_per_preference", "g")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    G_PER_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    G_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    g_per_preference: float
    g: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, fraction: _Optional[float] = ..., g_per_preference: _Optional[float] = ..., g: _Optional[_Iterable[float]] = ...) -> None: ...

class Mix(_message.Message):
    __slots__ = ("tenant", "task", "shares", "minimum", "expected_preference", "expected_g_per_request", "expected_l0_g_per_request", "traffic_share", "basis", "profile", "prompt", "no_prompt")
    TENANT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SHARES_FIELD_NUMBER: _ClassVar[int]
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_L0_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    TRAFFIC_SHARE_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    NO_PROMPT_FIELD_NUMBER: _ClassVar[int]
    tenant: str
    task: str
    shares: _containers.RepeatedCompositeFieldContainer[LevelShare]
    minimum: float
    expected_preference: float
    expected_g_per_request: float
    expected_l0_g_per_request: float
    traffic_share: float
    basis: str
    profile: _containers.RepeatedCompositeFieldContainer[LevelProfile]
    prompt: PromptPrices
    no_prompt: str
    def __init__(self, tenant: _Optional[str] = ..., task: _Optional[str] = ..., shares: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., minimum: _Optional[float] = ..., expected_preference: _Optional[float] = ..., expected_g_per_request: _Optional[float] = ..., expected_l0_g_per_request: _Optional[float] = ..., traffic_share: _Optional[float] = ..., basis: _Optional[str] = ..., profile: _Optional[_Iterable[_Union[LevelProfile, _Mapping]]] = ..., prompt: _Optional[_Union[PromptPrices, _Mapping]] = ..., no_prompt: _Optional[str] = ...) -> None: ...

class LevelShare(_message.Message):
    __slots__ = ("level", "share")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    level: str
    share: float
    def __init__(self, level: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class Intensity(_message.Message):
    __slots__ = ("g_per_kwh", "zone", "source", "factor_type", "signal", "time", "estimated", "override")
    G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    ZONE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    FACTOR_TYPE_FIELD_NUMBER: _ClassVar[int]
    SIGNAL_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    OVERRIDE_FIELD_NUMBER: _ClassVar[int]
    g_per_kwh: float
    zone: str
    source: str
    factor_type: FactorType
    signal: Signal
    time: _timestamp_pb2.Timestamp
    estimated: bool
    override: bool
    def __init__(self, g_per_kwh: _Optional[float] = ..., zone: _Optional[str] = ..., source: _Optional[str] = ..., factor_type: _Optional[_Union[FactorType, str]] = ..., signal: _Optional[_Union[Signal, str]] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., estimated: _Optional[bool] = ..., override: _Optional[bool] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("k0_min_g_per_kwh", "k0_max_g_per_kwh", "range_basis", "xi", "fraction", "floor", "active_constraint", "expected_g_per_request", "expected_l0_g_per_request", "expected_preference", "profile", "degraded", "trigger", "pause_reason", "preference_basis", "pin", "quality_price_g_per_point", "budget", "confidence", "evaluation", "block", "would_be", "no_prompt")
    K0_MIN_G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    K0_MAX_G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    RANGE_BASIS_FIELD_NUMBER: _ClassVar[int]
    XI_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_CONSTRAINT_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_L0_G_PER_REQUEST_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    PROFILE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    PAUSE_REASON_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_BASIS_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    QUALITY_PRICE_G_PER_POINT_FIELD_NUMBER: _ClassVar[int]
    BUDGET_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    BLOCK_FIELD_NUMBER: _ClassVar[int]
    WOULD_BE_FIELD_NUMBER: _ClassVar[int]
    NO_PROMPT_FIELD_NUMBER: _ClassVar[int]
    k0_min_g_per_kwh: float
    k0_max_g_per_kwh: float
    range_basis: str
    xi: float
    fraction: float
    floor: float
    active_constraint: str
    expected_g_per_request: float
    expected_l0_g_per_request: float
    expected_preference: float
    profile: _containers.RepeatedCompositeFieldContainer[LevelProfile]
    degraded: _containers.RepeatedScalarFieldContainer[str]
    trigger: str
    pause_reason: str
    preference_basis: str
    pin: Pin
    quality_price_g_per_point: float
    budget: Budget
    confidence: Confidence
    evaluation: str
    block: str
    would_be: _containers.RepeatedCompositeFieldContainer[LevelShare]
    no_prompt: str
    def __init__(self, k0_min_g_per_kwh: _Optional[float] = ..., k0_max_g_per_kwh: _Optional[float] = ..., range_basis: _Optional[str] = ..., xi: _Optional[float] = ..., fraction: _Optional[float] = ..., floor: _Optional[float] = ..., active_constraint: _Optional[str] = ..., expected_g_per_request: _Optional[float] = ..., expected_l0_g_per_request: _Optional[float] = ..., expected_preference: _Optional[float] = ..., profile: _Optional[_Iterable[_Union[LevelProfile, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., trigger: _Optional[str] = ..., pause_reason: _Optional[str] = ..., preference_basis: _Optional[str] = ..., pin: _Optional[_Union[Pin, _Mapping]] = ..., quality_price_g_per_point: _Optional[float] = ..., budget: _Optional[_Union[Budget, _Mapping]] = ..., confidence: _Optional[_Union[Confidence, _Mapping]] = ..., evaluation: _Optional[str] = ..., block: _Optional[str] = ..., would_be: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., no_prompt: _Optional[str] = ...) -> None: ...

class Confidence(_message.Message):
    __slots__ = ("wanted", "z", "z_wanted")
    WANTED_FIELD_NUMBER: _ClassVar[int]
    Z_FIELD_NUMBER: _ClassVar[int]
    Z_WANTED_FIELD_NUMBER: _ClassVar[int]
    wanted: float
    z: float
    z_wanted: float
    def __init__(self, wanted: _Optional[float] = ..., z: _Optional[float] = ..., z_wanted: _Optional[float] = ...) -> None: ...

class Budget(_message.Message):
    __slots__ = ("target", "hours", "carry_request_points", "expected_preference", "short_request_points", "basis")
    TARGET_FIELD_NUMBER: _ClassVar[int]
    HOURS_FIELD_NUMBER: _ClassVar[int]
    CARRY_REQUEST_POINTS_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    SHORT_REQUEST_POINTS_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    target: float
    hours: int
    carry_request_points: float
    expected_preference: float
    short_request_points: float
    basis: str
    def __init__(self, target: _Optional[float] = ..., hours: _Optional[int] = ..., carry_request_points: _Optional[float] = ..., expected_preference: _Optional[float] = ..., short_request_points: _Optional[float] = ..., basis: _Optional[str] = ...) -> None: ...

class LevelProfile(_message.Message):
    __slots__ = ("level", "energy_joules", "device_seconds", "preference", "energy_basis", "preference_basis", "outcomes", "mean_output_tokens", "energy_estimated", "mean_input_tokens", "effective_outcomes", "energy_se_joules", "age_s", "preference_se")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_BASIS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_BASIS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    MEAN_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    MEAN_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    EFFECTIVE_OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_SE_JOULES_FIELD_NUMBER: _ClassVar[int]
    AGE_S_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_SE_FIELD_NUMBER: _ClassVar[int]
    level: str
    energy_joules: float
    device_seconds: float
    preference: float
    energy_basis: str
    preference_basis: str
    outcomes: int
    mean_output_tokens: float
    energy_estimated: bool
    mean_input_tokens: float
    effective_outcomes: float
    energy_se_joules: float
    age_s: float
    preference_se: float
    def __init__(self, level: _Optional[str] = ..., energy_joules: _Optional[float] = ..., device_seconds: _Optional[float] = ..., preference: _Optional[float] = ..., energy_basis: _Optional[str] = ..., preference_basis: _Optional[str] = ..., outcomes: _Optional[int] = ..., mean_output_tokens: _Optional[float] = ..., energy_estimated: _Optional[bool] = ..., mean_input_tokens: _Optional[float] = ..., effective_outcomes: _Optional[float] = ..., energy_se_joules: _Optional[float] = ..., age_s: _Optional[float] = ..., preference_se: _Optional[float] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("segment_uid", "ticket", "level", "level_name", "policy_version", "policy_seed", "node_id", "stub_index", "sequence", "task", "pinned", "off", "control", "fallback", "held_back", "paused", "probe", "ending", "input_tokens", "output_tokens", "opened_at", "queue_seconds", "device_seconds", "first_token_seconds", "energy_joules", "energy_estimated", "receipt_joules", "carbon_g", "intensity_g_per_kwh", "max_tokens", "tenant", "evaluation", "prompt", "unmetered", "unscored")
    SEGMENT_UID_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    LEVEL_NAME_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_SEED_FIELD_NUMBER: _ClassVar[int]
    NODE_ID_FIELD_NUMBER: _ClassVar[int]
    STUB_INDEX_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    FALLBACK_FIELD_NUMBER: _ClassVar[int]
    HELD_BACK_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    ENDING_FIELD_NUMBER: _ClassVar[int]
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OPENED_AT_FIELD_NUMBER: _ClassVar[int]
    QUEUE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    FIRST_TOKEN_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    RECEIPT_JOULES_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_FIELD_NUMBER: _ClassVar[int]
    INTENSITY_G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    UNMETERED_FIELD_NUMBER: _ClassVar[int]
    UNSCORED_FIELD_NUMBER: _ClassVar[int]
    segment_uid: int
    ticket: int
    level: int
    level_name: str
    policy_version: int
    policy_seed: int
    node_id: int
    stub_index: int
    sequence: int
    task: str
    pinned: bool
    off: bool
    control: bool
    fallback: bool
    held_back: bool
    paused: bool
    probe: bool
    ending: Ending
    input_tokens: int
    output_tokens: int
    opened_at: _timestamp_pb2.Timestamp
    queue_seconds: float
    device_seconds: float
    first_token_seconds: float
    energy_joules: float
    energy_estimated: bool
    receipt_joules: float
    carbon_g: float
    intensity_g_per_kwh: float
    max_tokens: int
    tenant: str
    evaluation: bool
    prompt: bool
    unmetered: bool
    unscored: bool
    def __init__(self, segment_uid: _Optional[int] = ..., ticket: _Optional[int] = ..., level: _Optional[int] = ..., level_name: _Optional[str] = ..., policy_version: _Optional[int] = ..., policy_seed: _Optional[int] = ..., node_id: _Optional[int] = ..., stub_index: _Optional[int] = ..., sequence: _Optional[int] = ..., task: _Optional[str] = ..., pinned: _Optional[bool] = ..., off: _Optional[bool] = ..., control: _Optional[bool] = ..., fallback: _Optional[bool] = ..., held_back: _Optional[bool] = ..., paused: _Optional[bool] = ..., probe: _Optional[bool] = ..., ending: _Optional[_Union[Ending, str]] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., queue_seconds: _Optional[float] = ..., device_seconds: _Optional[float] = ..., first_token_seconds: _Optional[float] = ..., energy_joules: _Optional[float] = ..., energy_estimated: _Optional[bool] = ..., receipt_joules: _Optional[float] = ..., carbon_g: _Optional[float] = ..., intensity_g_per_kwh: _Optional[float] = ..., max_tokens: _Optional[int] = ..., tenant: _Optional[str] = ..., evaluation: _Optional[bool] = ..., prompt: _Optional[bool] = ..., unmetered: _Optional[bool] = ..., unscored: _Optional[bool] = ...) -> None: ...

class ReportOutcomesRequest(_message.Message):
    __slots__ = ("node", "batch", "outcomes", "node_status")
    NODE_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NODE_STATUS_FIELD_NUMBER: _ClassVar[int]
    node: str
    batch: int
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    node_status: NodeStatus
    def __init__(self, node: _Optional[str] = ..., batch: _Optional[int] = ..., outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ..., node_status: _Optional[_Union[NodeStatus, _Mapping]] = ...) -> None: ...

class ReportOutcomesResponse(_message.Message):
    __slots__ = ("stored", "duplicates")
    STORED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATES_FIELD_NUMBER: _ClassVar[int]
    stored: int
    duplicates: int
    def __init__(self, stored: _Optional[int] = ..., duplicates: _Optional[int] = ...) -> None: ...

class NodeStatus(_message.Message):
    __slots__ = ("node", "time", "policy_version", "policy_expired", "active", "meter", "energy_estimated", "metered_joules", "settled_joules", "idle_joules", "spooled", "dropped", "counters", "policy_error", "meter_problem", "unattributed_joules")
    class CountersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    NODE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    POLICY_EXPIRED_FIELD_NUMBER: _ClassVar[int]
    ACTIVE_FIELD_NUMBER: _ClassVar[int]
    METER_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    METERED_JOULES_FIELD_NUMBER: _ClassVar[int]
    SETTLED_JOULES_FIELD_NUMBER: _ClassVar[int]
    IDLE_JOULES_FIELD_NUMBER: _ClassVar[int]
    SPOOLED_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    POLICY_ERROR_FIELD_NUMBER: _ClassVar[int]
    METER_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    UNATTRIBUTED_JOULES_FIELD_NUMBER: _ClassVar[int]
    node: str
    time: _timestamp_pb2.Timestamp
    policy_version: int
    policy_expired: bool
    active: int
    meter: str
    energy_estimated: bool
    metered_joules: float
    settled_joules: float
    idle_joules: float
    spooled: int
    dropped: int
    counters: _containers.ScalarMap[str, int]
    policy_error: str
    meter_problem: str
    unattributed_joules: float
    def __init__(self, node: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policy_version: _Optional[int] = ..., policy_expired: _Optional[bool] = ..., active: _Optional[int] = ..., meter: _Optional[str] = ..., energy_estimated: _Optional[bool] = ..., metered_joules: _Optional[float] = ..., settled_joules: _Optional[float] = ..., idle_joules: _Optional[float] = ..., spooled: _Optional[int] = ..., dropped: _Optional[int] = ..., counters: _Optional[_Mapping[str, int]] = ..., policy_error: _Optional[str] = ..., meter_problem: _Optional[str] = ..., unattributed_joules: _Optional[float] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("zone", "degraded", "reasons", "policy", "outcomes", "nodes", "started_at", "version", "arms", "objective", "objective_set", "pin", "schedule", "metrics_address", "evaluation")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    OBJECTIVE_SET_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    SCHEDULE_FIELD_NUMBER: _ClassVar[int]
    METRICS_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    zone: str
    degraded: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    policy: Policy
    outcomes: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    started_at: _timestamp_pb2.Timestamp
    version: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmTotals]
    objective: Objective
    objective_set: _containers.RepeatedScalarFieldContainer[str]
    pin: Pin
    schedule: _containers.RepeatedCompositeFieldContainer[Window]
    metrics_address: str
    evaluation: EvaluationStatus
    def __init__(self, zone: _Optional[str] = ..., degraded: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., outcomes: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmTotals, _Mapping]]] = ..., objective: _Optional[_Union[Objective, _Mapping]] = ..., objective_set: _Optional[_Iterable[str]] = ..., pin: _Optional[_Union[Pin, _Mapping]] = ..., schedule: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., metrics_address: _Optional[str] = ..., evaluation: _Optional[_Union[EvaluationStatus, _Mapping]] = ...) -> None: ...

class EvaluationStatus(_message.Message):
    __slots__ = ("latest", "due", "why", "expected_at", "prompts", "drift")
    class PromptsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    LATEST_FIELD_NUMBER: _ClassVar[int]
    DUE_FIELD_NUMBER: _ClassVar[int]
    WHY_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_AT_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    latest: Evaluation
    due: bool
    why: str
    expected_at: _timestamp_pb2.Timestamp
    prompts: _containers.ScalarMap[str, int]
    drift: str
    def __init__(self, latest: _Optional[_Union[Evaluation, _Mapping]] = ..., due: _Optional[bool] = ..., why: _Optional[str] = ..., expected_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., prompts: _Optional[_Mapping[str, int]] = ..., drift: _Optional[str] = ...) -> None: ...

class ArmTotals(_message.Message):
    __slots__ = ("arm", "outcomes", "energy_joules", "carbon_g", "output_tokens", "energy_estimated", "carbon_g_by_series", "unmetered")
    class CarbonGBySeriesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ARM_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_BY_SERIES_FIELD_NUMBER: _ClassVar[int]
    UNMETERED_FIELD_NUMBER: _ClassVar[int]
    arm: str
    outcomes: int
    energy_joules: float
    carbon_g: float
    output_tokens: float
    energy_estimated: bool
    carbon_g_by_series: _containers.ScalarMap[str, float]
    unmetered: int
    def __init__(self, arm: _Optional[str] = ..., outcomes: _Optional[int] = ..., energy_joules: _Optional[float] = ..., carbon_g: _Optional[float] = ..., output_tokens: _Optional[float] = ..., energy_estimated: _Optional[bool] = ..., carbon_g_by_series: _Optional[_Mapping[str, float]] = ..., unmetered: _Optional[int] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("reason", "actor")
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    reason: str
    actor: str
    def __init__(self, reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ("actor",)
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    actor: str
    def __init__(self, actor: _Optional[str] = ...) -> None: ...

class OverrideIntensityRequest(_message.Message):
    __slots__ = ("g_per_kwh", "ttl", "actor")
    G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    g_per_kwh: float
    ttl: _duration_pb2.Duration
    actor: str
    def __init__(self, g_per_kwh: _Optional[float] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., actor: _Optional[str] = ...) -> None: ...

class Objective(_message.Message):
    __slots__ = ("xi", "mode", "control_share", "canary_share", "max_shares", "max_increase")
    class MaxSharesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    XI_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    CONTROL_SHARE_FIELD_NUMBER: _ClassVar[int]
    CANARY_SHARE_FIELD_NUMBER: _ClassVar[int]
    MAX_SHARES_FIELD_NUMBER: _ClassVar[int]
    MAX_INCREASE_FIELD_NUMBER: _ClassVar[int]
    xi: float
    mode: str
    control_share: float
    canary_share: float
    max_shares: _containers.ScalarMap[str, float]
    max_increase: float
    def __init__(self, xi: _Optional[float] = ..., mode: _Optional[str] = ..., control_share: _Optional[float] = ..., canary_share: _Optional[float] = ..., max_shares: _Optional[_Mapping[str, float]] = ..., max_increase: _Optional[float] = ...) -> None: ...

class SetObjectiveRequest(_message.Message):
    __slots__ = ("objective", "reset", "actor", "reason")
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    objective: Objective
    reset: bool
    actor: str
    reason: str
    def __init__(self, objective: _Optional[_Union[Objective, _Mapping]] = ..., reset: _Optional[bool] = ..., actor: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class SetObjectiveResponse(_message.Message):
    __slots__ = ("objective", "policy")
    OBJECTIVE_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    objective: Objective
    policy: Policy
    def __init__(self, objective: _Optional[_Union[Objective, _Mapping]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class Pin(_message.Message):
    __slots__ = ("shares", "until", "reason", "by")
    SHARES_FIELD_NUMBER: _ClassVar[int]
    UNTIL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    BY_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.RepeatedCompositeFieldContainer[LevelShare]
    until: _timestamp_pb2.Timestamp
    reason: str
    by: str
    def __init__(self, shares: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., until: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., reason: _Optional[str] = ..., by: _Optional[str] = ...) -> None: ...

class PinRequest(_message.Message):
    __slots__ = ("shares", "ttl", "reason", "actor")
    SHARES_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    shares: _containers.RepeatedCompositeFieldContainer[LevelShare]
    ttl: _duration_pb2.Duration
    reason: str
    actor: str
    def __init__(self, shares: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., reason: _Optional[str] = ..., actor: _Optional[str] = ...) -> None: ...

class UnpinRequest(_message.Message):
    __slots__ = ("actor",)
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    actor: str
    def __init__(self, actor: _Optional[str] = ...) -> None: ...

class Window(_message.Message):
    __slots__ = ("start", "end", "weekdays", "level")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    WEEKDAYS_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    start: str
    end: str
    weekdays: _containers.RepeatedScalarFieldContainer[str]
    level: str
    def __init__(self, start: _Optional[str] = ..., end: _Optional[str] = ..., weekdays: _Optional[_Iterable[str]] = ..., level: _Optional[str] = ...) -> None: ...

class SetScheduleRequest(_message.Message):
    __slots__ = ("windows", "actor")
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    windows: _containers.RepeatedCompositeFieldContainer[Window]
    actor: str
    def __init__(self, windows: _Optional[_Iterable[_Union[Window, _Mapping]]] = ..., actor: _Optional[str] = ...) -> None: ...

class ListDecisionsRequest(_message.Message):
    __slots__ = ("page_size", "before_version", "version")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_VERSION_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    before_version: int
    version: int
    def __init__(self, page_size: _Optional[int] = ..., before_version: _Optional[int] = ..., version: _Optional[int] = ...) -> None: ...

class Decision(_message.Message):
    __slots__ = ("policy", "inputs_json")
    POLICY_FIELD_NUMBER: _ClassVar[int]
    INPUTS_JSON_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    inputs_json: str
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ..., inputs_json: _Optional[str] = ...) -> None: ...

class ListDecisionsResponse(_message.Message):
    __slots__ = ("decisions", "next_before_version")
    DECISIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEFORE_VERSION_FIELD_NUMBER: _ClassVar[int]
    decisions: _containers.RepeatedCompositeFieldContainer[Decision]
    next_before_version: int
    def __init__(self, decisions: _Optional[_Iterable[_Union[Decision, _Mapping]]] = ..., next_before_version: _Optional[int] = ...) -> None: ...

class ListAuditRequest(_message.Message):
    __slots__ = ("page_size", "before_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    before_id: int
    def __init__(self, page_size: _Optional[int] = ..., before_id: _Optional[int] = ...) -> None: ...

class AuditEntry(_message.Message):
    __slots__ = ("id", "time", "who", "who_basis", "claimed", "action", "before_json", "after_json")
    ID_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    WHO_FIELD_NUMBER: _ClassVar[int]
    WHO_BASIS_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_FIELD_NUMBER: _ClassVar[int]
    ACTION_FIELD_NUMBER: _ClassVar[int]
    BEFORE_JSON_FIELD_NUMBER: _ClassVar[int]
    AFTER_JSON_FIELD_NUMBER: _ClassVar[int]
    id: int
    time: _timestamp_pb2.Timestamp
    who: str
    who_basis: str
    claimed: str
    action: str
    before_json: str
    after_json: str
    def __init__(self, id: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., who: _Optional[str] = ..., who_basis: _Optional[str] = ..., claimed: _Optional[str] = ..., action: _Optional[str] = ..., before_json: _Optional[str] = ..., after_json: _Optional[str] = ...) -> None: ...

class ListAuditResponse(_message.Message):
    __slots__ = ("entries", "next_before_id")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[AuditEntry]
    next_before_id: int
    def __init__(self, entries: _Optional[_Iterable[_Union[AuditEntry, _Mapping]]] = ..., next_before_id: _Optional[int] = ...) -> None: ...

class WatchStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("kind", "level", "policy_version", "arm", "count")
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    kind: FeedbackKind
    level: int
    policy_version: int
    arm: str
    count: int
    def __init__(self, kind: _Optional[_Union[FeedbackKind, str]] = ..., level: _Optional[int] = ..., policy_version: _Optional[int] = ..., arm: _Optional[str] = ..., count: _Optional[int] = ...) -> None: ...

class ReportFeedbackRequest(_message.Message):
    __slots__ = ("feedback", "report_id")
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    REPORT_ID_FIELD_NUMBER: _ClassVar[int]
    feedback: _containers.RepeatedCompositeFieldContainer[Feedback]
    report_id: str
    def __init__(self, feedback: _Optional[_Iterable[_Union[Feedback, _Mapping]]] = ..., report_id: _Optional[str] = ...) -> None: ...

class ReportFeedbackResponse(_message.Message):
    __slots__ = ("stored", "duplicate")
    STORED_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    stored: int
    duplicate: bool
    def __init__(self, stored: _Optional[int] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class SampledPrompt(_message.Message):
    __slots__ = ("id", "text", "task", "tenant", "level", "propensity", "pinned", "off", "control", "max_tokens", "policy_version", "sampled_at", "redacted", "inclusion", "stands_for")
    ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    PROPENSITY_FIELD_NUMBER: _ClassVar[int]
    PINNED_FIELD_NUMBER: _ClassVar[int]
    OFF_FIELD_NUMBER: _ClassVar[int]
    CONTROL_FIELD_NUMBER: _ClassVar[int]
    MAX_TOKENS_FIELD_NUMBER: _ClassVar[int]
    POLICY_VERSION_FIELD_NUMBER: _ClassVar[int]
    SAMPLED_AT_FIELD_NUMBER: _ClassVar[int]
    REDACTED_FIELD_NUMBER: _ClassVar[int]
    INCLUSION_FIELD_NUMBER: _ClassVar[int]
    STANDS_FOR_FIELD_NUMBER: _ClassVar[int]
    id: int
    text: str
    task: str
    tenant: str
    level: int
    propensity: float
    pinned: bool
    off: bool
    control: bool
    max_tokens: int
    policy_version: int
    sampled_at: _timestamp_pb2.Timestamp
    redacted: bool
    inclusion: float
    stands_for: float
    def __init__(self, id: _Optional[int] = ..., text: _Optional[str] = ..., task: _Optional[str] = ..., tenant: _Optional[str] = ..., level: _Optional[int] = ..., propensity: _Optional[float] = ..., pinned: _Optional[bool] = ..., off: _Optional[bool] = ..., control: _Optional[bool] = ..., max_tokens: _Optional[int] = ..., policy_version: _Optional[int] = ..., sampled_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., redacted: _Optional[bool] = ..., inclusion: _Optional[float] = ..., stands_for: _Optional[float] = ...) -> None: ...

class ReportPromptsRequest(_message.Message):
    __slots__ = ("node", "prompts")
    NODE_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    node: str
    prompts: _containers.RepeatedCompositeFieldContainer[SampledPrompt]
    def __init__(self, node: _Optional[str] = ..., prompts: _Optional[_Iterable[_Union[SampledPrompt, _Mapping]]] = ...) -> None: ...

class ReportPromptsResponse(_message.Message):
    __slots__ = ("kept",)
    KEPT_FIELD_NUMBER: _ClassVar[int]
    kept: int
    def __init__(self, kept: _Optional[int] = ...) -> None: ...

class DrawPromptsRequest(_message.Message):
    __slots__ = ("count", "seed", "without", "actor", "total")
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    WITHOUT_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    count: int
    seed: int
    without: _containers.RepeatedScalarFieldContainer[int]
    actor: str
    total: int
    def __init__(self, count: _Optional[int] = ..., seed: _Optional[int] = ..., without: _Optional[_Iterable[int]] = ..., actor: _Optional[str] = ..., total: _Optional[int] = ...) -> None: ...

class DrawPromptsResponse(_message.Message):
    __slots__ = ("prompts",)
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    prompts: _containers.RepeatedCompositeFieldContainer[SampledPrompt]
    def __init__(self, prompts: _Optional[_Iterable[_Union[SampledPrompt, _Mapping]]] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("id", "started_at", "finished_at", "pack", "pack_hash", "levels", "judge", "method", "judge_version", "classes", "cost", "stopped", "prompts", "bias", "unusable", "trigger", "by_prompt", "weights")
    class BiasEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    ID_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    FINISHED_AT_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    PACK_HASH_FIELD_NUMBER: _ClassVar[int]
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    JUDGE_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    JUDGE_VERSION_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    COST_FIELD_NUMBER: _ClassVar[int]
    STOPPED_FIELD_NUMBER: _ClassVar[int]
    PROMPTS_FIELD_NUMBER: _ClassVar[int]
    BIAS_FIELD_NUMBER: _ClassVar[int]
    UNUSABLE_FIELD_NUMBER: _ClassVar[int]
    TRIGGER_FIELD_NUMBER: _ClassVar[int]
    BY_PROMPT_FIELD_NUMBER: _ClassVar[int]
    WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    id: str
    started_at: _timestamp_pb2.Timestamp
    finished_at: _timestamp_pb2.Timestamp
    pack: str
    pack_hash: int
    levels: _containers.RepeatedScalarFieldContainer[str]
    judge: str
    method: str
    judge_version: str
    classes: _containers.RepeatedCompositeFieldContainer[ClassQuality]
    cost: EvaluationCost
    stopped: str
    prompts: str
    bias: _containers.ScalarMap[str, float]
    unusable: int
    trigger: str
    by_prompt: _containers.RepeatedCompositeFieldContainer[JudgedPrompt]
    weights: str
    def __init__(self, id: _Optional[str] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., finished_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., pack: _Optional[str] = ..., pack_hash: _Optional[int] = ..., levels: _Optional[_Iterable[str]] = ..., judge: _Optional[str] = ..., method: _Optional[str] = ..., judge_version: _Optional[str] = ..., classes: _Optional[_Iterable[_Union[ClassQuality, _Mapping]]] = ..., cost: _Optional[_Union[EvaluationCost, _Mapping]] = ..., stopped: _Optional[str] = ..., prompts: _Optional[str] = ..., bias: _Optional[_Mapping[str, float]] = ..., unusable: _Optional[int] = ..., trigger: _Optional[str] = ..., by_prompt: _Optional[_Iterable[_Union[JudgedPrompt, _Mapping]]] = ..., weights: _Optional[str] = ...) -> None: ...

class JudgedPrompt(_message.Message):
    __slots__ = ("task", "weight", "predicted", "scores")
    TASK_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    task: str
    weight: float
    predicted: _containers.RepeatedScalarFieldContainer[float]
    scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, task: _Optional[str] = ..., weight: _Optional[float] = ..., predicted: _Optional[_Iterable[float]] = ..., scores: _Optional[_Iterable[float]] = ...) -> None: ...

class ClassQuality(_message.Message):
    __slots__ = ("task", "judged", "preference", "covariance", "low", "high", "shrunk", "weight_share")
    TASK_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    COVARIANCE_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    SHRUNK_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_SHARE_FIELD_NUMBER: _ClassVar[int]
    task: str
    judged: int
    preference: _containers.RepeatedScalarFieldContainer[float]
    covariance: _containers.RepeatedScalarFieldContainer[float]
    low: _containers.RepeatedScalarFieldContainer[float]
    high: _containers.RepeatedScalarFieldContainer[float]
    shrunk: float
    weight_share: float
    def __init__(self, task: _Optional[str] = ..., judged: _Optional[int] = ..., preference: _Optional[_Iterable[float]] = ..., covariance: _Optional[_Iterable[float]] = ..., low: _Optional[_Iterable[float]] = ..., high: _Optional[_Iterable[float]] = ..., shrunk: _Optional[float] = ..., weight_share: _Optional[float] = ...) -> None: ...

class EvaluationCost(_message.Message):
    __slots__ = ("requests", "output_tokens", "energy_joules", "energy_estimated", "carbon_g", "judge_calls", "judge_cached", "judge_input_tokens", "judge_output_tokens", "judge_joules", "judge_g", "judge_price", "carbon_unknown", "judge_joules_unknown", "left_out")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_FIELD_NUMBER: _ClassVar[int]
    JUDGE_CALLS_FIELD_NUMBER: _ClassVar[int]
    JUDGE_CACHED_FIELD_NUMBER: _ClassVar[int]
    JUDGE_INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    JUDGE_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    JUDGE_JOULES_FIELD_NUMBER: _ClassVar[int]
    JUDGE_G_FIELD_NUMBER: _ClassVar[int]
    JUDGE_PRICE_FIELD_NUMBER: _ClassVar[int]
    CARBON_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    JUDGE_JOULES_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    requests: int
    output_tokens: int
    energy_joules: float
    energy_estimated: bool
    carbon_g: float
    judge_calls: int
    judge_cached: int
    judge_input_tokens: int
    judge_output_tokens: int
    judge_joules: float
    judge_g: float
    judge_price: float
    carbon_unknown: bool
    judge_joules_unknown: bool
    left_out: int
    def __init__(self, requests: _Optional[int] = ..., output_tokens: _Optional[int] = ..., energy_joules: _Optional[float] = ..., energy_estimated: _Optional[bool] = ..., carbon_g: _Optional[float] = ..., judge_calls: _Optional[int] = ..., judge_cached: _Optional[int] = ..., judge_input_tokens: _Optional[int] = ..., judge_output_tokens: _Optional[int] = ..., judge_joules: _Optional[float] = ..., judge_g: _Optional[float] = ..., judge_price: _Optional[float] = ..., carbon_unknown: _Optional[bool] = ..., judge_joules_unknown: _Optional[bool] = ..., left_out: _Optional[int] = ...) -> None: ...

class ReportEvaluationRequest(_message.Message):
    __slots__ = ("evaluation", "actor")
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    ACTOR_FIELD_NUMBER: _ClassVar[int]
    evaluation: Evaluation
    actor: str
    def __init__(self, evaluation: _Optional[_Union[Evaluation, _Mapping]] = ..., actor: _Optional[str] = ...) -> None: ...

class ReportEvaluationResponse(_message.Message):
    __slots__ = ("policy",)
    POLICY_FIELD_NUMBER: _ClassVar[int]
    policy: Policy
    def __init__(self, policy: _Optional[_Union[Policy, _Mapping]] = ...) -> None: ...

class ListEvaluationsRequest(_message.Message):
    __slots__ = ("page_size", "before_id")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    before_id: str
    def __init__(self, page_size: _Optional[int] = ..., before_id: _Optional[str] = ...) -> None: ...

class ListEvaluationsResponse(_message.Message):
    __slots__ = ("evaluations", "next_before_id")
    EVALUATIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_BEFORE_ID_FIELD_NUMBER: _ClassVar[int]
    evaluations: _containers.RepeatedCompositeFieldContainer[Evaluation]
    next_before_id: str
    def __init__(self, evaluations: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ..., next_before_id: _Optional[str] = ...) -> None: ...
