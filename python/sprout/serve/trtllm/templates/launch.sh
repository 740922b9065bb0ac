#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Rendered by `sprout render`. Starts Triton in the foreground, inside the container.
set -euo pipefail
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
exec @{launch}
