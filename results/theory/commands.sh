#!/usr/bin/env bash
# Checks and figures of the theory: toys, the sphere, and one real network.
#   bash results/theory/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
export OMP_NUM_THREADS=1 # the rounding of sums depends on the number of threads
optim=.venv/bin/optim-family
here=results/theory
$optim verify --report runs/theory/verify | tee $here/verify.txt
cp runs/theory/verify/verify.json $here/
$optim verify --only V12 --report runs/theory/digits | tee $here/verify-slow.txt
cp runs/theory/digits/V12.svg runs/theory/digits/V12.png $here/
for subject in sphere regression completion valley convergence; do
  $optim flow $subject --out $here
done
$optim run --optimizer gd --model bn_cnn --lr 0.5 --weight-decay 2e-3 --limit 200 --steps 3000 --every 50 \
  --midpoint --resume --out runs/theory/gd
$optim flow --run runs/theory/gd --out $here | tee $here/network.txt
$optim compare runs/theory/gd --out $here/run
