#!/usr/bin/env bash
# Part of bn-cifar10-small: only bn_cnn, gd and rmsprop, 200 of the 5,000 exact images in CIFAR.npz.
#   bash results/studies/bn-cifar10-200/commands.sh [CIFAR.npz]
# The file holds x_train, y_train, x_test, y_test.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p runs/data && cp -f "${1:-../shared/data/cifar10-5k.npz}" runs/data/cifar10.npz
slice=(
  --set data.name=npz:runs/data/cifar10.npz --set data.limit=200 --set data.ghost_batch=100
  --set train.steps=2000 --set measure.every=100
  --only model=bn_cnn --only optimizer=gd,rmsprop --only lr=0.1,0.02
)
.venv/bin/optim-family study run bn-cifar10-small "${slice[@]}" --workers 2
.venv/bin/optim-family study report bn-cifar10-small "${slice[@]}" --to results/studies/bn-cifar10-200
