#!/usr/bin/env bash
# The study that `make demo` runs. Finished runs are not executed again.
#   bash results/studies/digits/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."
.venv/bin/optim-family study run digits --workers 2
.venv/bin/optim-family study report digits --to results/studies/digits
