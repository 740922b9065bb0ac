# SPDX-License-Identifier: Apache-2.0
"""A whole stack on one GPU for the live measurements: Triton, agent, control plane and an engine.

The engine is a vLLM that Sprout starts on random weights of a published shape, or one that runs
already (`engine_url`). Which GPU a stack computes on is said as to any CUDA program, by
CUDA_VISIBLE_DEVICES, and which one it meters by `energy.gpus`; here both come of one name.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).parents[1]))
from _engine import BATCHED, LONGEST, SHAPES, TOGETHER, config
from _lengths import lengths_repository
from tokenizers import Tokenizer

from sprout.config import Config, load
from sprout.serve import gguf, weights
from sprout.serve.background import BackgroundStack
from sprout.serve.process import log_tail
from sprout.serve.state import StackPaths
from sprout_ext.clock import ClockReader, ClockState

START_S = 420.0  # of a vLLM: weights, compilation, CUDA graphs
# Random weights, at the speed that a server of this class of GPU is run with.
VLLM_ARGS = (
    *("--load-format", "dummy", "--dtype", "bfloat16"),
    *("--gpu-memory-utilization", "0.9", "--max-num-batched-tokens", str(BATCHED)),
)
_NUMBER = count()


class Live:
    """`with Live(folder, gpu="0", vllm_python=python) as live:` - up and ready, on free ports.

    To start several at once: `start` each, then `wait` for each; `stop` whatever happened. On the
    main thread.
    """

    def __init__(
        self,
        work: Path,
        *,
        gpu: str | None = None,
        model: str | Path = "13b",
        vllm_python: Path | None = None,
        vllm_args: Sequence[str] = (),
        engine_url: str = "",
        tokenizer: Path | None = None,
        meter: str = "nvml",
        slots: int = TOGETHER,
        repositories: Sequence[Path] = (),
        **settings: Any,
    ) -> None:
        """work: an empty folder or none. gpu: index or UUID; None: the only one. model: a shape of
        random weights ("7b", "13b"), or a model's folder. vllm_args: after VLLM_ARGS, which they
        may so override. engine_url: an engine that runs already, up to and with /v1; "echo": the
        slot answers by itself. tokenizer: folder; default: the default weights' own. settings:
        others of the configuration, `section__key=value`.
        """
        self.work = work
        work.mkdir(parents=True, exist_ok=True)
        self.gpu = None if meter != "nvml" and gpu is None else Gpu.named(gpu)
        self.tokenizer_dir = tokenizer or gguf.tokenizer_dir(
            weights.default_weights(), work / "tokenizer"
        )
        flags: dict[str, Any] = {
            "stack.name": f"live-{os.getpid()}-{next(_NUMBER)}",
            "stack.state_dir": str(work / "state"),
            "triton.http_port": 0,
            "triton.grpc_port": 0,
            "triton.metrics_port": 0,
            "triton.start_timeout_s": 120.0,  # beside an engine that starts
            "control.port": 0,
            "carbon.sources": "constant",
            "carbon.constant_g_per_kwh": 300.0,
            "energy.meters": meter,
            "engine.slots": slots,
            "engine.queue": 4096,  # an open loop beyond the engine's capacity waits, and shows it
            "engine.context_tokens": LONGEST,
            "engine.tokenizer_dir": str(self.tokenizer_dir),
        }
        if self.gpu is not None and meter == "nvml":
            flags["energy.gpus"] = [self.gpu.uuid]
        if engine_url == "echo":
            flags["engine.kind"] = "echo"
        elif engine_url:
            flags |= {"engine.kind": "openai", "engine.url": engine_url}
        else:
            folder = Path(model) if str(model) not in SHAPES else self._shaped(str(model))
            flags |= {
                "engine.kind": "vllm",
                "engine.model": str(folder),
                "engine.vllm_python": str(vllm_python or sys.executable),
                "engine.vllm_args": [*VLLM_ARGS, *vllm_args],
                "engine.vllm_start_timeout_s": START_S,
            }
        flags |= {key.replace("__", "."): value for key, value in settings.items()}
        given: Config = load(environ={}, flags=flags)
        lengths = lengths_repository(work / "lengths", given, self.tokenizer_dir)
        more = [str(path) for path in (lengths, *repositories)]
        self.cfg: Config = load(environ={}, flags=flags | {"triton.model_repositories": more})
        self._paths = StackPaths.of(self.cfg)
        self._background: BackgroundStack | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
            self.wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._background = BackgroundStack(self.cfg, start_timeout_s=START_S + 60)
        with _environment({} if self.gpu is None else self.gpu.environment):
            self._background.start()

    def wait(self) -> None:
        """Until it serves. StackError; the logs' last words are on standard error."""
        try:
            self._started.wait_ready()
        except Exception:
            self.print_logs()
            raise

    def stop(self) -> None:
        if self._background is not None:
            self._background.stop(30.0)

    @property
    def _started(self) -> BackgroundStack:
        if self._background is None:
            raise RuntimeError("the stack was not started")
        return self._background

    @property
    def state(self) -> Path:
        """The stack's folder: logs, store, configuration in force."""
        return self._paths.state

    @property
    def shm(self) -> Path:
        return self._paths.shm

    def processes(self) -> dict[str, Any]:
        """Phase, pid and restarts of each process of the stack."""
        return dict(self._started.state()["processes"])

    def endpoint(self, name: str) -> str:
        """ "host:port" of "http", "grpc", "metrics", "control" or "engine"."""
        return self._started.endpoint(name)

    @property
    def grpc(self) -> str:
        return self.endpoint("grpc")

    @property
    def engine_root(self) -> str:
        """Of the engine's HTTP server; /v1/completions and /metrics are beneath."""
        kind, url = self.cfg.engine.kind, self.cfg.engine.url
        return url.removesuffix("/v1") if kind == "openai" else f"http://{self.endpoint('engine')}"

    def clock(self) -> ClockState:
        """The agent's totals at its last tick: joules metered, settled on requests, idle."""
        state = ClockReader(self.shm / "energy.clock").state()
        if state is None:
            raise SystemExit("the agent keeps no energy clock: see its log")
        return state

    def print_logs(self, lines: int = 40) -> None:
        """The last words of every process, on standard error."""
        for log in sorted((self.state / "logs").glob("*.log")):
            print(f"--- {log.name}\n{log_tail(log, lines)}", file=sys.stderr, flush=True)

    def _shaped(self, shape: str) -> Path:
        """A model's folder without weights: its shape, and the tokenizer beside it."""
        folder = self.work / f"llama-2-{shape}-shaped-random"
        folder.mkdir()
        for file in self.tokenizer_dir.iterdir():
            shutil.copy(file, folder)
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        # Else Transformers takes the class of Llama's, which makes another tokenizer of the file.
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
        tokenizer = Tokenizer.from_file(str(self.tokenizer_dir / "tokenizer.json"))
        own = config(shape)
        # A tokenizer with more words than the published models' has the last layer grow by them.
        own["vocab_size"] = max(own["vocab_size"], tokenizer.get_vocab_size())
        (folder / "config.json").write_text(json.dumps(own))
        return folder


class Gpu:
    """One of NVML's, by the name that energy is metered by and the one that CUDA takes."""

    def __init__(self, index: int, uuid: str, name: str) -> None:
        self.index, self.uuid, self.name = index, uuid, name

    @property
    def environment(self) -> dict[str, str]:
        """By index, since vLLM reads numbers alone here; and in the order that NVML counts in."""
        return {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(self.index)}

    @classmethod
    def named(cls, given: str | None) -> Self:
        """Index or UUID; None: the only one. SystemExit where that is none, or not clear."""
        import pynvml  # noqa: PLC0415  # the rest runs without a driver

        pynvml.nvmlInit()
        try:
            found = []
            for index in range(pynvml.nvmlDeviceGetCount()):
                handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                uuid, name = (
                    text if isinstance(text, str) else text.decode()
                    for text in (pynvml.nvmlDeviceGetUUID(handle), pynvml.nvmlDeviceGetName(handle))
                )
                found.append(cls(index, uuid, name))
        finally:
            pynvml.nvmlShutdown()
        if given is not None:
            found = [gpu for gpu in found if given in (str(gpu.index), gpu.uuid)]
        if len(found) != 1:
            which = "several GPUs: name one" if found else f"there is no GPU {given or ''}"
            raise SystemExit(f"{which} (--gpu, index or UUID: nvidia-smi -L)")
        return found[0]


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """For the processes that are started within."""
    before = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def options(parser: argparse.ArgumentParser) -> None:
    """What says how a stack is made, on a command line."""
    parser.add_argument("--model", default="13b", help="7b, 13b (random weights), or a folder")
    parser.add_argument("--gpu", help="index or UUID; needed where there are several")
    parser.add_argument("--vllm-python", type=Path, help="interpreter of vLLM's environment")
    parser.add_argument(
        "--vllm-arg", action="append", default=[], help="one more of `vllm serve`; repeatable"
    )
    parser.add_argument(
        "--engine-url", default="", help="an engine that runs already, up to and with /v1; or: echo"
    )
    parser.add_argument("--tokenizer", type=Path, help="folder; default: the default weights' own")
    parser.add_argument(
        "--meter", default="nvml", help="energy.meters; another than nvml is for trials"
    )
    parser.add_argument("--slots", type=int, default=TOGETHER, help="requests decoded at once")


def made(given: argparse.Namespace, work: Path, **more: Any) -> Live:
    """The stack that `options` describe; more: keywords of Live."""
    own: dict[str, Any] = {
        "gpu": given.gpu,
        "model": given.model,
        "vllm_python": given.vllm_python,
        "vllm_args": given.vllm_arg,
        "engine_url": given.engine_url,
        "tokenizer": given.tokenizer,
        "meter": given.meter,
        "slots": given.slots,
    }
    return Live(work, **own | more)
