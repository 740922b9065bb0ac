# SPDX-License-Identifier: Apache-2.0
"""Detokenize each chunk by itself, nothing else."""

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
        tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()[0, 0]
        length = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()[0, 0]
        text = self.tokenizer.decode(tokens[:length].tolist()).encode()
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("OUTPUT", np.array([[text]], dtype=np.object_))]
        )
