# SPDX-License-Identifier: Apache-2.0
"""A control plane that sends what it is told to and keeps what it gets: real gRPC on loopback."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from waiting import LOOK_S, PATIENCE_S

from sprout.directives import PACKS
from sprout.v1 import control_pb2 as pb
from sprout.v1.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server

PACK = PACKS["explicit"]


def make_policy(
    counter: int = 1, *, ttl_s: float = 60.0, shares: tuple[float, ...] = (0.5, 0.3, 0.2)
) -> pb.Policy:
    policy = pb.Policy(
        epoch=7,
        counter=counter,
        seed=42,
        pack=PACK.name,
        pack_hash=PACK.hash,
        shares=[pb.LevelShare(level=f"L{i}", share=share) for i, share in enumerate(shares)],
        control_share=0.02,
        canary_share=1.0,
        intensity=pb.Intensity(g_per_kwh=250.0, zone="TEST"),
        pue=1.2,
        embodied_g_per_s=1e-4,
    )
    policy.ttl.FromNanoseconds(round(ttl_s * 1e9))
    return policy


def prompt_policy(weights: str, share: float = 0.75) -> pb.PromptPolicy:
    """For three levels; weights: their digest."""
    return pb.PromptPolicy(
        weights=weights,
        share=share,
        g_per_joule=[1.0, 2.0, 3.0],
        points=[
            pb.PricePoint(fraction=0.25, g_per_preference=0.5, g=[0.0, 0.0, 0.5]),
            pb.PricePoint(fraction=0.75, g_per_preference=0.0, g=[0.0, -1.0, 0.0]),
        ],
    )


class Recorder(ControlServicer):
    """`start` and `stop` as often as wanted; the port stays the same."""

    def __init__(self) -> None:
        self.outcomes: dict[tuple[int, int], pb.Outcome] = {}
        self.duplicates = 0
        self.status = pb.NodeStatus()
        self.reports = 0
        self.watches = 0  # streams ever opened
        self.mute = False  # watchers are sent nothing at all
        self.refuse: dict[int, grpc.StatusCode] = {}  # by ticket: outcomes that are never taken
        self.refuse_status = False  # and with it every report
        self.most = 10_000  # outcomes in a report
        self.calls = 0  # reports, the refused ones too
        self.weights: dict[str, bytes] = {}  # by digest, right or not
        self.weights_asked: list[str] = []
        self.weights_held = threading.Event()  # cleared: whoever asks for weights waits
        self.weights_held.set()
        self.port = 0
        self._policy: pb.Policy | None = None
        self._changed = threading.Condition()
        self._server: grpc.Server | None = None

    def start(self) -> "Recorder":
        self._server = grpc.server(ThreadPoolExecutor(8))
        add_ControlServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()
        return self

    def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            stopped = server.stop(grace=0)
            with self._changed:
                self._changed.notify_all()
            stopped.wait(PATIENCE_S)

    def publish(self, policy: pb.Policy) -> None:
        with self._changed:
            self._policy = policy
            self._changed.notify_all()

    def wait(self, done: Callable[[], bool]) -> None:
        """Until `done()`; AssertionError after a long time."""
        until = time.monotonic() + PATIENCE_S
        with self._changed:
            while not done():
                assert time.monotonic() < until, "timed out"
                self._changed.wait(LOOK_S)

    def WatchPolicy(  # noqa: N802
        self, request: pb.WatchPolicyRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.Policy]:
        self.watches += 1
        sent: pb.Policy | None = None
        while context.is_active():
            with self._changed:
                if self._policy is sent or self._policy is None or self.mute:
                    self._changed.wait(0.2)
                    continue
                sent = self._policy
            yield sent

    def GetWeights(  # noqa: N802
        self, request: pb.GetWeightsRequest, context: grpc.ServicerContext
    ) -> pb.GetWeightsResponse:
        self.weights_asked.append(request.sha256)
        self.weights_held.wait(10)
        if request.sha256 not in self.weights:
            context.abort(grpc.StatusCode.NOT_FOUND, "no policy names them")
        return pb.GetWeightsResponse(weights=self.weights[request.sha256])

    def ReportOutcomes(  # noqa: N802
        self, request: pb.ReportOutcomesRequest, context: grpc.ServicerContext
    ) -> pb.ReportOutcomesResponse:
        self.calls += 1
        if len(request.outcomes) > self.most:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too large")
        if self.refuse_status:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "status")
        for outcome in request.outcomes:
            if outcome.ticket in self.refuse:
                context.abort(self.refuse[outcome.ticket], f"ticket {outcome.ticket}")
        duplicates = 0
        with self._changed:
            for outcome in request.outcomes:
                key = (outcome.segment_uid, outcome.ticket)
                duplicates += key in self.outcomes
                self.outcomes.setdefault(key, outcome)
            self.duplicates += duplicates
            self.status = request.node_status
            self.reports += 1
            self._changed.notify_all()
        return pb.ReportOutcomesResponse(
            stored=len(request.outcomes) - duplicates, duplicates=duplicates
        )
