#!/usr/bin/env bash
# First light: three optimizers on real CIFAR-10 images, and RMSprop with ResNet-18 on digits.
#   bash results/first-light/commands.sh [CIFAR.npz]
# Without the file, which holds x_train, y_train, x_test, y_test, the CIFAR-10 part is skipped.
set -euo pipefail
cd "$(dirname "$0")/../.."
npz=${1:-../shared/data/cifar10-5k.npz}
run=.venv/bin/optim-family
here=results/first-light
if [ -e "$npz" ]; then
  mkdir -p runs/data && cp -f "$npz" runs/data/cifar10.npz
  common=(--model bn_cnn --data npz:runs/data/cifar10.npz --limit 1000 --steps 600 --every 25 --resume)
  $run run --optimizer gd "${common[@]}" --lr 0.1 --weight-decay 5e-3 --out runs/first-light/gd
  $run run --optimizer rmsprop "${common[@]}" --lr 0.02 --weight-decay 0.05 --out runs/first-light/rmsprop
  $run run --optimizer sgd "${common[@]}" --lr 0.1 --weight-decay 5e-3 --batch-size 100 --out runs/first-light/sgd
  $run compare runs/first-light/{gd,rmsprop,sgd} --out $here | tee $here/comparison.txt
else
  echo "skipped: there is no $npz"
fi
$run run --optimizer rmsprop --model resnet18 --resume --out runs/first-light/sentence
$run compare runs/first-light/sentence --out $here/sentence | tee $here/sentence.txt
