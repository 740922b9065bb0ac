# SPDX-License-Identifier: Apache-2.0
"""Sprout's own preprocessing, and then the answer's length by the level that it drew.

Weights are random, so an answer would not get shorter by being asked to. `lengths` in a request's
parameters is the tokens of its answer at each level, "205,48,32"; requests without it are served as
they are. With `end_id` -1 an answer has exactly that many.
"""

import importlib.util
import json
from pathlib import Path

import numpy as np

from sprout.request.preprocess import Prepared


def _own():
    """The model file of Sprout's preprocessing, which lies beside this one."""
    spec = importlib.util.spec_from_file_location(
        "sprout_preprocessing_model", Path(__file__).with_name("preprocessing.py")
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Lengthened:
    """A Preprocessor whose requests have the length of their level."""

    def __init__(self, preprocessor):
        self._preprocessor = preprocessor

    def prepare(self, batch):
        results = self._preprocessor.prepare(batch)
        for prompt, result in zip(batch, results, strict=True):
            if isinstance(result, Prepared) and "lengths" in prompt.parameters:
                lengths = json.loads(prompt.parameters)["lengths"].split(",")
                result.max_tokens = int(lengths[result.level])
                result.outputs["REQUEST_OUTPUT_LEN"] = np.array([[result.max_tokens]], np.int32)
        return results

    def open_flight(self, prepared):
        return self._preprocessor.open_flight(prepared)

    def close(self):
        self._preprocessor.close()


class TritonPythonModel(_own().TritonPythonModel):
    def initialize(self, args):
        super().initialize(args)
        self._preprocessor = Lengthened(self._preprocessor)
