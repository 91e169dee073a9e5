#!/bin/sh
# Makes the records in this folder anew with an older hwnas: sh make.sh PYTHON CHECKOUT EMPTY_FOLDER
# PYTHON has hwnas's dependencies, CHECKOUT is a worktree of the commit (README.md), which is changed in one line.
set -eu
python=$1 checkout=$2
sed -i 's/^KEPT = 25 /KEPT = 3 /' "$checkout/hwnas/runner.py" # samples a turn: small files
export PYTHONPATH="$checkout" PYTHONDONTWRITEBYTECODE=1 OMP_NUM_THREADS=1
cd "$3"
hwnas() { "$python" -m hwnas "$@"; }

"$python" - <<'PYTHON'
import numpy as np

random, images = np.random.default_rng(0), {}
for part, count in (("train", 120), ("test", 60)):
    labels = np.arange(count) % 3
    pixels = random.integers(0, 2, (count, 12, 12)) * 90
    pixels[labels == 1, :, ::3] += 60  # bright columns
    pixels[labels == 2, ::3, :] += 60  # bright rows
    images |= {f"x_{part}": pixels.astype(np.uint8), f"y_{part}": labels.astype(np.uint8)}
np.savez_compressed("images.npz", **images)
rows = [(a, b, 60 + 3 * a + 2 * b, 61 + 3 * a + 2 * b, 1 + a + b / 2) for a in range(4) for b in range(3)]
with open("table.csv", "w") as file:
    file.writelines(",".join(map(str, row)) + "\n" for row in [("a", "b", "seen", "truth", "ms"), *rows])
PYTHON

cat > cell.toml <<'TOML'
[scale]
skeleton = "cifar"
cells = 1
filters = 4
resolution = 12
classes = 3
input_channels = 1
[normal]
blocks = [[["separable_3x3", 0], ["max_pool_3x3", 1]], [["identity", 1], ["conv_1x7_7x1", 2]]]
concat = "loose"
[reduction]
blocks = [[["dilated_3x3", 0], ["avg_pool_3x3", 1]]]
TOML

hwnas devices add board --no-ask --transport ssh --setting tflite-fp32-1t,onnx-fp32-2t --python python3 \
    --description "a board" --set address=board.example --set port=2222
hwnas profile host --setting tflite-fp32-1t --cells 1 --filters 4 --resolution 12 --classes 3 --networks 4 --validate 2
common="--max-latency-ms 0.15 --data npz:images.npz --cells 1 --filters 4 --targets 0.7,1.0"
hwnas search --out runs/a $common --strategy tpe --seed 1 --trials 3 --images 160 --epochs 4 --pruner halving
hwnas search --out runs/b $common --surrogate gp --trials 3 --estimator size --predicted
train="--accelerator cpu --precision fp32 --no-augment --batch-size 16"
hwnas train runs/a --winners 1 --epochs 8 $train
hwnas export runs/a --allow-over-cap
hwnas bench --table table.csv --choices a,b --accuracy seen,truth --latency ms --caps 3.5 --out bench \
    --strategies random --seeds 1 --evaluations 5 --jobs 1
"$python" -m hwnas train runs/a --trial 3 --epochs 10 $train & # which is killed after an epoch or two
until test -e runs/a/winners/0003/checkpoint.safetensors; do sleep 0.02; done
kill -9 $!
rm -rf runs/a/winners/0000/checkpoint.safetensors runs/a/trials bench/comparison.* bench/summary.json runs/*/.*lock
