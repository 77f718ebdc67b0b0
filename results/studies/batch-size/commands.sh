#!/usr/bin/env bash
# The packaged study, unchanged; about 18 minutes on one core. Finished runs are not executed again.
#   bash results/studies/batch-size/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."
.venv/bin/optim-family study run batch-size
.venv/bin/optim-family study report batch-size --to results/studies/batch-size
