#!/usr/bin/env bash
# First light: three optimizers on real CIFAR-10 images and the sentence itself on digits.
#   bash results/first-light/commands.sh [CIFAR.npz]     about half an hour on two cores
# Without the file, which holds x_train, y_train, x_test, y_test, the CIFAR-10 part is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
npz=${1:-../shared/data/cifar10-5k.npz}
run=.venv/bin/optim-family
here=results/first-light
if [ -e "$npz" ]; then
  common="--model bn_cnn --data npz:$npz --limit 1000 --steps 1000 --every 20"
  $run run --optimizer gd $common --lr 0.5 --weight-decay 2e-3 --resume --out runs/first-light/gd
  $run run --optimizer rmsprop $common --lr 0.02 --weight-decay 0.05 --resume --out runs/first-light/rmsprop
  $run run --optimizer sgd $common --lr 0.05 --weight-decay 2e-3 --batch-size 100 --resume --out runs/first-light/sgd
  $run compare runs/first-light/gd runs/first-light/rmsprop runs/first-light/sgd --out $here | tee $here/comparison.txt
else
  echo "skipped: there is no $npz"
fi
$run run --optimizer rmsprop --model resnet18 --resume --out runs/first-light/sentence | tee $here/sentence.txt
