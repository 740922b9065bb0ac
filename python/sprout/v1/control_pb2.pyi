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

class GetPolicyRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class WatchPolicyRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("epoch", "counter", "seed", "issued_at", "ttl", "pack", "pack_hash", "shares", "control_share", "canary_share", "paused", "intensity", "pue", "embodied_g_per_s", "explanation")
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
    def __init__(self, epoch: _Optional[int] = ..., counter: _Optional[int] = ..., seed: _Optional[int] = ..., issued_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., pack: _Optional[str] = ..., pack_hash: _Optional[int] = ..., shares: _Optional[_Iterable[_Union[LevelShare, _Mapping]]] = ..., control_share: _Optional[float] = ..., canary_share: _Optional[float] = ..., paused: _Optional[bool] = ..., intensity: _Optional[_Union[Intensity, _Mapping]] = ..., pue: _Optional[float] = ..., embodied_g_per_s: _Optional[float] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ...) -> None: ...

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
    __slots__ = ("k0_min_g_per_kwh", "k0_max_g_per_kwh", "range_basis", "xi", "fraction", "floor", "active_constraint", "expected_g_per_request", "expected_l0_g_per_request", "expected_preference", "profile", "degraded", "trigger", "pause_reason", "preference_basis")
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
    def __init__(self, k0_min_g_per_kwh: _Optional[float] = ..., k0_max_g_per_kwh: _Optional[float] = ..., range_basis: _Optional[str] = ..., xi: _Optional[float] = ..., fraction: _Optional[float] = ..., floor: _Optional[float] = ..., active_constraint: _Optional[str] = ..., expected_g_per_request: _Optional[float] = ..., expected_l0_g_per_request: _Optional[float] = ..., expected_preference: _Optional[float] = ..., profile: _Optional[_Iterable[_Union[LevelProfile, _Mapping]]] = ..., degraded: _Optional[_Iterable[str]] = ..., trigger: _Optional[str] = ..., pause_reason: _Optional[str] = ..., preference_basis: _Optional[str] = ...) -> None: ...

class LevelProfile(_message.Message):
    __slots__ = ("level", "energy_joules", "device_seconds", "preference", "energy_basis", "preference_basis", "outcomes", "mean_output_tokens", "energy_estimated")
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    DEVICE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_FIELD_NUMBER: _ClassVar[int]
    ENERGY_BASIS_FIELD_NUMBER: _ClassVar[int]
    PREFERENCE_BASIS_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    MEAN_OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    level: str
    energy_joules: float
    device_seconds: float
    preference: float
    energy_basis: str
    preference_basis: str
    outcomes: int
    mean_output_tokens: float
    energy_estimated: bool
    def __init__(self, level: _Optional[str] = ..., energy_joules: _Optional[float] = ..., device_seconds: _Optional[float] = ..., preference: _Optional[float] = ..., energy_basis: _Optional[str] = ..., preference_basis: _Optional[str] = ..., outcomes: _Optional[int] = ..., mean_output_tokens: _Optional[float] = ..., energy_estimated: _Optional[bool] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("segment_uid", "ticket", "level", "level_name", "policy_version", "policy_seed", "node_id", "stub_index", "sequence", "task", "pinned", "off", "control", "fallback", "held_back", "paused", "probe", "ending", "input_tokens", "output_tokens", "opened_at", "queue_seconds", "device_seconds", "first_token_seconds", "energy_joules", "energy_estimated", "receipt_joules", "carbon_g", "intensity_g_per_kwh", "max_tokens")
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
    def __init__(self, segment_uid: _Optional[int] = ..., ticket: _Optional[int] = ..., level: _Optional[int] = ..., level_name: _Optional[str] = ..., policy_version: _Optional[int] = ..., policy_seed: _Optional[int] = ..., node_id: _Optional[int] = ..., stub_index: _Optional[int] = ..., sequence: _Optional[int] = ..., task: _Optional[str] = ..., pinned: _Optional[bool] = ..., off: _Optional[bool] = ..., control: _Optional[bool] = ..., fallback: _Optional[bool] = ..., held_back: _Optional[bool] = ..., paused: _Optional[bool] = ..., probe: _Optional[bool] = ..., ending: _Optional[_Union[Ending, str]] = ..., input_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., opened_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., queue_seconds: _Optional[float] = ..., device_seconds: _Optional[float] = ..., first_token_seconds: _Optional[float] = ..., energy_joules: _Optional[float] = ..., energy_estimated: _Optional[bool] = ..., receipt_joules: _Optional[float] = ..., carbon_g: _Optional[float] = ..., intensity_g_per_kwh: _Optional[float] = ..., max_tokens: _Optional[int] = ...) -> None: ...

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
    __slots__ = ("node", "time", "policy_version", "policy_expired", "active", "meter", "energy_estimated", "metered_joules", "settled_joules", "idle_joules", "spooled", "dropped", "counters", "policy_error")
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
    def __init__(self, node: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., policy_version: _Optional[int] = ..., policy_expired: _Optional[bool] = ..., active: _Optional[int] = ..., meter: _Optional[str] = ..., energy_estimated: _Optional[bool] = ..., metered_joules: _Optional[float] = ..., settled_joules: _Optional[float] = ..., idle_joules: _Optional[float] = ..., spooled: _Optional[int] = ..., dropped: _Optional[int] = ..., counters: _Optional[_Mapping[str, int]] = ..., policy_error: _Optional[str] = ...) -> None: ...

class GetStatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Status(_message.Message):
    __slots__ = ("zone", "degraded", "reasons", "policy", "outcomes", "nodes", "started_at", "version", "arms")
    ZONE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    REASONS_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    STARTED_AT_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    ARMS_FIELD_NUMBER: _ClassVar[int]
    zone: str
    degraded: bool
    reasons: _containers.RepeatedScalarFieldContainer[str]
    policy: Policy
    outcomes: int
    nodes: _containers.RepeatedCompositeFieldContainer[NodeStatus]
    started_at: _timestamp_pb2.Timestamp
    version: str
    arms: _containers.RepeatedCompositeFieldContainer[ArmTotals]
    def __init__(self, zone: _Optional[str] = ..., degraded: _Optional[bool] = ..., reasons: _Optional[_Iterable[str]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., outcomes: _Optional[int] = ..., nodes: _Optional[_Iterable[_Union[NodeStatus, _Mapping]]] = ..., started_at: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., version: _Optional[str] = ..., arms: _Optional[_Iterable[_Union[ArmTotals, _Mapping]]] = ...) -> None: ...

class ArmTotals(_message.Message):
    __slots__ = ("arm", "outcomes", "energy_joules", "carbon_g", "output_tokens", "energy_estimated")
    ARM_FIELD_NUMBER: _ClassVar[int]
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    ENERGY_JOULES_FIELD_NUMBER: _ClassVar[int]
    CARBON_G_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    ENERGY_ESTIMATED_FIELD_NUMBER: _ClassVar[int]
    arm: str
    outcomes: int
    energy_joules: float
    carbon_g: float
    output_tokens: float
    energy_estimated: bool
    def __init__(self, arm: _Optional[str] = ..., outcomes: _Optional[int] = ..., energy_joules: _Optional[float] = ..., carbon_g: _Optional[float] = ..., output_tokens: _Optional[float] = ..., energy_estimated: _Optional[bool] = ...) -> None: ...

class PauseRequest(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class ResumeRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OverrideIntensityRequest(_message.Message):
    __slots__ = ("g_per_kwh", "ttl")
    G_PER_KWH_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    g_per_kwh: float
    ttl: _duration_pb2.Duration
    def __init__(self, g_per_kwh: _Optional[float] = ..., ttl: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
