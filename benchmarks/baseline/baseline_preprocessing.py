# SPDX-License-Identifier: Apache-2.0
"""Tokenize, nothing else."""

import json
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils
from tokenizers import Tokenizer


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        folder = Path(parameters["tokenizer_dir"]["string_value"])
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def execute(self, requests):
        return [self._one(request) for request in requests]

    def _one(self, request):
        text = pb_utils.get_input_tensor_by_name(request, "QUERY").as_numpy()[0, 0].decode()
        limit = pb_utils.get_input_tensor_by_name(request, "REQUEST_OUTPUT_LEN").as_numpy()
        ids = np.array([self.tokenizer.encode(text, add_special_tokens=False).ids], dtype=np.int32)
        length = np.array([[ids.shape[1]]], dtype=np.int32)
        return pb_utils.InferenceResponse(
            [
                pb_utils.Tensor("INPUT_ID", ids),
                pb_utils.Tensor("REQUEST_INPUT_LEN", length),
                pb_utils.Tensor("REQUEST_OUTPUT_LEN", limit),
            ]
        )
