#!/usr/bin/env bash
# What a Jetson takes for a model: TensorRT's own measurement of an engine, and mien's of everything, if it is installed.
#   ./measure.sh NAME.engine [BATCH ...]      batches: 1 8 32 by default
# Changes no setting: the power mode is shown, `sudo nvpmodel -m 0 && sudo jetson_clocks` before it is yours to decide.
# Not run on hardware by mien's authors.
set -euo pipefail
engine=${1:?usage: measure.sh NAME.engine [BATCH ...]}
shift
batches=("$@")
[ $# -gt 0 ] || batches=(1 8 32)
spec=${engine%.engine}.json
if [ ! -f "$engine" ] || [ ! -f "$spec" ]; then echo "$engine, $spec: both are needed" >&2; exit 2; fi
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$trtexec" ] || { echo "no trtexec: install JetPack's TensorRT (apt install nvidia-tensorrt)" >&2; exit 2; }
size=$(python3 -c 'import json, sys; crop = json.load(open(sys.argv[1]))["crop"]; print("3x{height}x{width}".format(**crop))' "$spec")
cat /etc/nv_tegra_release 2>/dev/null || true
nvpmodel -q 2>/dev/null || true
for batch in "${batches[@]}"; do
  echo "batch $batch:"
  "$trtexec" --loadEngine="$engine" --shapes="chips:${batch}x$size" --useSpinWait | grep -E "Throughput|Latency: min|GPU Compute Time: min"
done
if command -v mien >/dev/null; then
  mien doctor || true
  mien bench --markdown "$engine" ferplus-small ferplus-nano
fi
