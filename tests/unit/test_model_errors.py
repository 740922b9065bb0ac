# SPDX-License-Identifier: Apache-2.0
"""The repository's models, with a stand-in for Triton's module: errors that Triton can take."""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sprout.errors import EngineError, RequestError
from sprout.serve.render import repository_source

HALF = "the server said '\ud83d'"  # what its JSON can hold, and UTF-8 can't


class TritonError:
    """Triton's takes a C++ string, which is UTF-8."""

    INVALID_ARG, INTERNAL, UNAVAILABLE, CANCELLED = range(4)

    def __init__(self, message: str, code: int) -> None:
        self.text, self.code = message.encode().decode(), code


class Response:
    def __init__(self, output_tensors: Any = (), error: TritonError | None = None) -> None:
        self.error = error


class Sender:
    def __init__(self) -> None:
        self.sent: list[Response] = []

    def send(self, response: Response, flags: int) -> None:
        self.sent.append(response)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    triton = ModuleType("triton_python_backend_utils")
    triton.__dict__.update(
        TRITONSERVER_RESPONSE_COMPLETE_FINAL=1,
        TritonError=TritonError,
        InferenceResponse=Response,
    )
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", triton)

    def load(name: str) -> ModuleType:
        file = repository_source() / name / "1" / "model.py"
        spec = importlib.util.spec_from_file_location(f"model_of_{name}", file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def one(sender: Sender) -> TritonError:
    [response] = sender.sent
    assert response.error is not None
    return response.error


def test_the_slot_s_errors(model: Callable[[str], ModuleType]) -> None:
    sender = Sender()
    model("tensorrt_llm")._Responder(sender).fail(RequestError(HALF))
    error = one(sender)
    assert (error.text, error.code) == ("the server said '?'", TritonError.INVALID_ARG)


def test_the_unary_model_s_errors(model: Callable[[str], ModuleType]) -> None:
    sender = Sender()
    request = SimpleNamespace(
        get_response_sender=lambda: sender, requested_output_names=lambda: ["text_output"]
    )
    call = model("tensorrt_llm_bls").TritonCall(request, None, None)
    call.fail(EngineError(HALF))
    error = one(sender)
    assert (error.text, error.code) == ("the server said '?'", TritonError.UNAVAILABLE)


@pytest.mark.parametrize("name", ["preprocessing", "postprocessing"])
def test_errors_of_what_stands_around_the_engine(
    model: Callable[[str], ModuleType], name: str
) -> None:
    module = model(name)
    assert module._failed(RequestError(HALF)).error.text == "the server said '?'"
    assert module._failed(ValueError(HALF)).error.text == f"{name} failed: the server said '?'"
