#!/usr/bin/env bash
# The same runs with weight decay two and four times as large; they do not stay at the edge.
#   bash results/studies/strong-decay/commands.sh [CIFAR.npz]
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p runs/data && cp -f "${1:-../shared/data/cifar10-5k.npz}" runs/data/cifar10.npz
study=results/studies/strong-decay/strong-decay.toml
.venv/bin/optim-family study run $study --workers 2
.venv/bin/optim-family study report $study --to results/studies/strong-decay
