#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rendered by `sprout render`. Run it inside @{image},
# with the same GPUs that will serve, /models/checkpoint and /models/build mounted as in
# compose.yaml, and TENSORRT_LLM naming a clone of NVIDIA/TensorRT-LLM at tag v@{tensorrt_llm}.
set -euo pipefail
: "${TENSORRT_LLM:?a clone of NVIDIA/TensorRT-LLM at tag v@{tensorrt_llm}}"
here=$(python3 -c "import tensorrt_llm; print(tensorrt_llm.__version__)" | tail -n 1)
if [[ $here != "@{tensorrt_llm}" ]]; then
  echo "this container carries TensorRT-LLM $here, not @{tensorrt_llm}" >&2
  exit 1
fi

@{convert}

@{build}
