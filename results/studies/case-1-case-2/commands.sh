#!/usr/bin/env bash
# Gradient descent after 100 % training accuracy: normalised, without decay, without normalisation; three seeds.
#   bash results/studies/case-1-case-2/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."
.venv/bin/optim-family study run case-1-case-2 --workers 2
.venv/bin/optim-family study report case-1-case-2 --to results/studies/case-1-case-2
