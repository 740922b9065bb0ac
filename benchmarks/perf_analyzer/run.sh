#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# perf_analyzer against a Triton that serves TensorRT-LLM's stock tensors, with Sprout or without.
#
#   run.sh closed C...      so many requests in flight, a run for each
#   run.sh open RATE...     Poisson arrivals per second, whatever is in flight, a run for each
#   run.sh unary C...       as closed, of tensorrt_llm_bls: whole answers
#   run.sh compare A B      two arms in turn (A B B A ...), with C in flight or at RATE arrivals
#
# An arm is `on` (as Sprout decides; what a stock repository does anyway), `off` (no directive), the
# name of a level, or a request parameter as name:value:type. README.md says what to read from it.
# All else by variables: HOST PORT (gRPC), MODEL (ensemble), ARM (of closed, open, unary), C or RATE
# and ROUNDS (of compare), PROMPTS MAX_TOKENS INPUTS_FLAGS (to inputs.py), REQUESTS or DURATION_S (of
# arrivals), WARMUP, PARAMETERS (more name:value:type), FLAGS (more of perf_analyzer's), OUT,
# PERF_ANALYZER, PYTHON.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
: "${HOST:=localhost}" "${PORT:=8001}" "${MODEL:=ensemble}" "${ARM:=on}" "${ROUNDS:=4}" "${OUT:=results}"
: "${PROMPTS:=$here/prompts.txt}" "${MAX_TOKENS:=256}" "${DURATION_S:=60}" "${WARMUP:=16}"
: "${PERF_ANALYZER:=perf_analyzer}" "${PYTHON:=python3}"
read -ra inputs_flags <<<"${INPUTS_FLAGS:-}"
read -ra parameters <<<"${PARAMETERS:-}"
read -ra flags <<<"${FLAGS:-}"

die() { echo "run.sh: $*" >&2; exit 1; }
usage() { sed -n 's/^#   \(run.sh.*\)/\1/p' "$0" >&2; exit 2; }
count() { [[ $1 =~ ^[1-9][0-9]*$ ]] || die "'$1' is no number of requests in flight"; }

use() { # MODEL: and its inputs from PROMPTS
  model=$1
  local unary=()
  if [[ $model == tensorrt_llm_bls ]]; then
    unary=(--unary)
  else
    flags+=(--streaming) # a decoupled model takes nothing else
  fi
  mkdir -p "$OUT"
  inputs=$OUT/inputs-$model.json
  "$PYTHON" "$here/inputs.py" "$PROMPTS" --max-tokens "$MAX_TOKENS" "${unary[@]}" \
    "${inputs_flags[@]}" >"$inputs"
}

in_flight() { # C: the flags of a closed loop, of so many requests that its ends weigh little
  count "$1"
  load=(--concurrency-range "$1" --request-count "${REQUESTS:-$(($1 * 20 > 100 ? $1 * 20 : 100))}")
}

arrivals() { # RATE: the flags of an open loop; perf_analyzer wants at least RATE requests
  [[ $1 =~ ^[0-9]+(\.[0-9]+)?$ && $1 == *[1-9]* ]] || die "'$1' is no rate of requests per second"
  # Its four threads share the warm-up, and one with nothing to do waits for ever.
  ((WARMUP == 0 || WARMUP >= 4)) || die "WARMUP $WARMUP: with arrivals it must be 0, or 4 or more"
  local requests=${REQUESTS:-}
  [[ -n $requests ]] || requests=$("$PYTHON" -c \
    'import math, sys; print(math.ceil(float(sys.argv[1]) * float(sys.argv[2])))' "$1" "$DURATION_S")
  # Without an end it is 1, and a rate below that a range.
  load=(--request-rate-range "$1:$1" --request-distribution poisson --request-count "$requests")
}

measure() { # NAME ARM: one run under `load`, into OUT/NAME.json and OUT/NAME.log
  local export=$OUT/$1.json log=$OUT/$1.log arm=()
  case $2 in
    on) ;;
    off) arm=(sprout_off:true:bool) ;;
    *:*:*) arm=("$2") ;;
    *) arm=("sprout_level:$2:string") ;;
  esac
  [[ ! -e $export ]] || die "$export is there already, and perf_analyzer writes over nothing: another OUT"
  local command=("$PERF_ANALYZER" -m "$model" -i grpc -u "$HOST:$PORT" --async "${load[@]}"
    --warmup-request-count "$WARMUP" --input-data "$inputs" --profile-export-file "$export")
  local parameter
  for parameter in "${arm[@]}" "${parameters[@]}"; do command+=(--request-parameter "$parameter"); done
  command+=("${flags[@]}")
  echo "${command[*]}" >&2
  if ! "${command[@]}" >"$log" 2>&1 || [[ ! -e $export ]]; then
    # It prints all of its options before the one line that says why.
    grep -E '^(Error|Failed|Thread|Decoupled)|error:' "$log" >&2 || tail -n 5 "$log" >&2
    die "perf_analyzer failed: $log"
  fi
  grep WARNING "$log" >&2 || true
}

(($# >= 2)) || usage
recipe=$1
shift
case $recipe in
  closed | unary)
    if [[ $recipe == unary ]]; then use tensorrt_llm_bls; else use "$MODEL"; fi
    files=()
    for c in "$@"; do
      in_flight "$c"
      measure "$recipe-${ARM//[:\/]/_}-c$c" "$ARM"
      files+=("$OUT/$recipe-${ARM//[:\/]/_}-c$c.json")
    done
    "$PYTHON" "$here/summary.py" "${files[@]}"
    ;;
  open)
    use "$MODEL"
    files=()
    for rate in "$@"; do
      arrivals "$rate"
      measure "open-${ARM//[:\/]/_}-r$rate" "$ARM"
      files+=("$OUT/open-${ARM//[:\/]/_}-r$rate.json")
    done
    "$PYTHON" "$here/summary.py" "${files[@]}"
    ;;
  compare)
    (($# == 2)) || usage
    use "$MODEL"
    if [[ -n ${RATE:-} ]]; then arrivals "$RATE"; else in_flight "${C:-8}"; fi
    first=() second=()
    for ((round = 1; round <= ROUNDS; round++)); do
      name=compare-$(printf %02d "$round")
      order=(a b)
      ((round % 2)) || order=(b a)
      for arm in "${order[@]}"; do
        if [[ $arm == a ]]; then measure "$name-a" "$1"; else measure "$name-b" "$2"; fi
      done
      first+=("$OUT/$name-a.json") second+=("$OUT/$name-b.json")
    done
    echo "A: $1, B: $2"
    "$PYTHON" "$here/summary.py" --a "${first[@]}" --b "${second[@]}"
    ;;
  *) usage ;;
esac
