#!/bin/bash
# Everything in docs/benchmarks/speed.md, on this machine's CPU: about a quarter of an hour on two quiet cores.
#
#   tools/benchmark_speed.sh [PYTHON]
set -eu
python=${1:-python3}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD
out=docs/benchmarks
quick="--device cpu --rounds 2 --seconds 1"
$python -m videonst bench speed $quick --start-up --json $out/speed.json
$python -m videonst bench speed $quick --model tiny.int8 --model fast.int8 --size 640x360 --flow fast --json $out/speed-flow-fast.json
$python -m videonst bench speed $quick --model full --size 640x360 --json $out/speed-full.json
$python tools/compare_layouts.py --rounds 8 --json $out/layouts.json
bounded=0
$python tools/measure_memory.py --json $out/memory.json || bounded=$?
$python tools/report_speed.py
exit $bounded
