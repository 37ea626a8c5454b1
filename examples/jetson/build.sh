#!/usr/bin/env bash
# Builds a TensorRT engine from what `mien export --to tensorrt` wrote, on the Jetson that will run it.
#   ./build.sh MODEL.onnx [MOST]      NAME.json must lie beside it; MOST: the largest batch, 32 by default, or
#                                     `fixed` for a file of one batch (mien export --to tensorrt --batch N)
# Writes NAME.engine there. Needs JetPack's trtexec and any python3. Not run on hardware by mien's authors.
set -euo pipefail
model=${1:?usage: build.sh MODEL.onnx [MOST]}
most=${2:-32}
spec=${model%.onnx}.json
engine=${model%.onnx}.engine
[ -f "$model" ] || { echo "$model: no such file" >&2; exit 2; }
[ -f "$spec" ] || { echo "$spec: is missing; copy it with the model: an engine carries no description of itself" >&2; exit 2; }
trtexec=$(command -v trtexec || echo /usr/src/tensorrt/bin/trtexec)
[ -x "$trtexec" ] || { echo "no trtexec: install JetPack's TensorRT (apt install nvidia-tensorrt)" >&2; exit 2; }
size=$(python3 -c 'import json, sys; crop = json.load(open(sys.argv[1]))["crop"]; print("3x{height}x{width}".format(**crop))' "$spec")
shapes=()
if [ "$most" != fixed ]; then
  best=$((most < 8 ? most : 8))
  shapes=(--minShapes="chips:1x$size" --optShapes="chips:${best}x$size" --maxShapes="chips:${most}x$size")
fi
"$trtexec" --onnx="$model" --saveEngine="$engine.part" --fp16 ${shapes[@]+"${shapes[@]}"}
mv "$engine.part" "$engine"
echo "written: $engine; it runs on this device with this TensorRT alone"
