#!/bin/bash
# Fine-tunes shipped networks with the temporal stage, side by side on one GPU.
#
#   tools/train_on_gpu.sh DATA OUT SECONDS [TIER…]        (default: fast tiny full)
#
# DATA holds content/, styles/ and vgg19-features.safetensors. OUT gets TIER.onnx and TIER.jsonl (the log) for each
# tier, after SECONDS at the latest: a tier that is not done by then is exported from its last checkpoint. The runs
# themselves live in $RUNS (default /tmp/steady) and go on where they stopped when the same is called again there.
set -u
data=${1:?folder of data} out=${2:?folder for the results} seconds=${3:?time limit} runs=${RUNS:-/tmp/steady}
shift 3
[ $# -gt 0 ] || set -- fast tiny full
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
mkdir -p "$out" "$runs"
for tier; do
  timeout "$seconds" python3 -m videonst train --recipe "models/recipes/$tier-steady.toml" --start "models/$tier.onnx" \
    --styles "$data/styles" --content "$data/content" --vgg "$data/vgg19-features.safetensors" \
    --device cuda --threads 4 --out "$runs/$tier.onnx" </dev/null 2>&1 | sed -u "s/^/$tier: /" &
done
wait
status=0
for tier; do
  [ -f "$runs/$tier.onnx" ] || python3 -m videonst export "$runs/$tier.training/checkpoint.pt" "$runs/$tier.onnx" </dev/null
  cp "$runs/$tier.onnx" "$out/$tier.onnx" || status=1
  cp "$runs/$tier.training/log.jsonl" "$out/$tier.jsonl" || status=1
done
exit $status
