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
python3 -m videonst doctor >"$out/doctor.txt" 2>&1
# Whether steadying on the device gives what the processor gives, and whether everything is computed there; needs pytest
# and hypothesis.
timeout 100 python3 -m pytest -q -rs tests/test_carry.py -k gpu >"$out/steadied.txt" 2>&1
timeout 100 python3 -m pytest -q -rs tests/test_hardware.py -k gpu >"$out/decoded.txt" 2>&1 # NVDEC against software
# A row is written as soon as it is there: what a time limit cuts off is only what comes after it.
for model in tiny fast full; do
  timeout 150 python3 -m videonst bench speed --device cuda --model $model --size 1280x720 --size 1920x1080 \
    --size 3840x2160 --flow fast --rounds 2 --seconds 1 --json "$out/speed-$model.json" >"$out/speed-$model.txt" 2>&1
done
ls -l "$out"
