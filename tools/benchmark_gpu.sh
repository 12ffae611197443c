#!/bin/bash
# Speed on one NVIDIA GPU, in one call of less than 10 minutes: writes OUT/*.json and OUT/*.txt.
#
#   tools/benchmark_gpu.sh [OUT]        (default: docs/benchmarks/h200)
#
# Needs onnxruntime-gpu with its CUDA libraries (pip install '.[cuda]') and no network. Where OUT is set in the
# environment and no argument is given, results go there.
set -u
out=${1:-${OUT:-docs/benchmarks/h200}}
mkdir -p "$out" && out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
nvidia-smi >"$out/nvidia-smi.txt" 2>&1
timeout 20 python3 -m videonst doctor >"$out/doctor.txt" 2>&1
# Whether steadying on the device gives what the processor gives, whether everything is computed there, and whether CUDA
# graphs and page-locked memory give what is painted without them; needs pytest and hypothesis.
timeout 85 python3 -m pytest -q -rs tests/test_carry.py tests/test_page_locked.py tests/test_cuda_graphs.py -k gpu \
  >"$out/tests.txt" 2>&1
timeout 60 python3 -m pytest -q -rs tests/test_hardware.py -k gpu >"$out/decoded.txt" 2>&1 # NVDEC against software
# A row is written as soon as it is there: what a time limit cuts off is only what comes after it.
measure() { # seconds, name, options
  local limit=$1 name=$2
  shift 2
  timeout "$limit" python3 -m videonst bench speed --device cuda --flow fast --rounds 2 --seconds 0.7 \
    --json "$out/speed-$name.json" "$@" >"$out/speed-$name.txt" 2>&1
}
for model in tiny fast full; do
  measure 115 $model --model $model --size 1920x1080 --size 1280x720 --size 3840x2160
  measure 45 $model-graphs --model $model --size 1920x1080 --cuda-graphs
done
ls -l "$out"
