#!/usr/bin/env bash
# Part of bn-cifar10-small: 2,000 steps on 1,000 of the 5,000 exact images in CIFAR.npz; about two hours on one core.
#   bash results/studies/bn-cifar10-1000/commands.sh [CIFAR.npz]
# The file holds x_train, y_train, x_test, y_test. Finished runs are not executed again.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p runs/data && cp -f "${1:-../shared/data/cifar10-5k.npz}" runs/data/cifar10.npz
slice=(--set data.name=npz:runs/data/cifar10.npz --set train.steps=2000 --set measure.every=100)
study() { .venv/bin/optim-family study "$1" bn-cifar10-small "${slice[@]}" "${@:2}"; }
study run --only model=bn_cnn --only optimizer=gd,sgd --workers 1
study run --only model=bn_cnn --only optimizer=rmsprop --only lr=0.02 --workers 1
study run --only model=resnet20_narrow --only optimizer=gd --only weight_decay=5e-3 --workers 1
study report --to results/studies/bn-cifar10-1000
