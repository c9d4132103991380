#!/usr/bin/env bash
# Makes figures/data anew, from training on: less than ten minutes on two cores, no network, no GPU.
# Run it where ssgd-analyze is on the path: `figures/recipes.sh`, then `make figures`.
# What is finished in results/ is kept; delete it to begin from nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

# ten seeds of eight methods at two batch sizes, each with its tuned settings
ssgd-analyze study digits --out results/digits --resume
large=results/digits/runs/batch-256
sgd=$large/sgd-seed0
ssgd=$large/s-sgd-seed0
sam=$large/sam-seed0
out=results/gallery

ssgd-analyze landscape $sgd $ssgd $sam --dims 2 --points 31 --out $out/contours --resume
ssgd-analyze landscape $sgd $ssgd $sam --repeats 10 --points 31 --split both --out $out/lines --resume
# from two initialisations, on the true labels: with label noise each seed has its own wrong ones
train="--data digits --model mlp --lr 0.2 --batch-size 256 --epochs 60 --schedule cosine --resume"
ssgd-analyze train --method sgd $train --out $out/sgd
ssgd-analyze train --method s-sgd --set noise_scale=0.6 --seed 1 $train --out $out/s-sgd
ssgd-analyze connect $out/sgd $out/s-sgd --points 31 --out $out/connection --resume
ssgd-analyze landscape $ssgd --dims 2 --directions eigen --span 1 --points 31 --out $out/eigen --resume
ssgd-analyze landscape $ssgd --dims 2 --directions trajectory --points 31 --out $out/trajectory --resume

ssgd-analyze sharpness $sgd $ssgd $sam --top 10 --metric expected --metric adaptive_worst \
  --metric sam --metric worst_case --curves --batch-size 128 --out $out/sharpness --resume

ssgd-analyze train --method sgd --data digits --model mlp --loss mse --lr 1 --momentum 0 \
  --batch-size 1297 --epochs 600 --track sharpness:3 --track-every 5 \
  --out results/edge-of-stability --resume

metrics="--metric test_accuracy --metric train_loss --metric lambda_max --metric trace \
  --metric sam --metric expected --metric adaptive_worst --metric fisher_rao"
ssgd-analyze compare $large/sgd-seed? $large/s-sgd-seed? $large/sam-seed? --match-loss $metrics \
  --out $out/methods
ssgd-analyze compare results/digits/runs --match-loss --correlate $metrics --out $out/runs

# Compact, and without this machine's folders.
keep() {
  python3 -m json.tool --compact --no-ensure-ascii "$1" | sed "s|$PWD/||g" > "figures/data/$2"
}
mkdir -p figures/data
for name in contours lines eigen trajectory; do
  cp $out/$name/landscape.npz figures/data/$name.npz
  keep $out/$name/landscape.json $name.json
done
cp $out/connection/connect.npz figures/data/connection.npz
keep $out/connection/connect.json connection.json
keep $out/sharpness/sharpness.json sharpness.json
cp results/edge-of-stability/tracking.jsonl figures/data/edge-of-stability.jsonl
keep results/edge-of-stability/config.json edge-of-stability.json
keep $out/methods/compare.json methods.json
keep $out/runs/compare.json runs.json
keep results/digits/result.json digits.json
