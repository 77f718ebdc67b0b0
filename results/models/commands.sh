#!/usr/bin/env bash
# Measure one small model of every family; about two hours on one core. Finished models are not measured again.
#   .venv/bin/python -m pip install '.[transformers]' && bash results/models/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
.venv/bin/optim-family models check --sweep --to results/models
