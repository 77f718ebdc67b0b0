#!/usr/bin/env bash
# The zoo: runs the study zoo.toml, and collects the table and the figure.
#   bash results/zoo/commands.sh          with the learning rates of zoo.toml
#   bash results/zoo/commands.sh rates    chooses them first, and writes rates.csv and zoo.toml
# Finished runs are not computed again; an interrupted one resumes. A run whose numbers overflow fails for good.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
$python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
  --target runs/zoo-plugin examples/plugin
export PYTHONPATH=$PWD:$PWD/runs/zoo-plugin OMP_NUM_THREADS=1
if [ "${1:-}" = rates ]; then
  $python results/zoo/choose_rates.py runs/zoo-rates
fi
$python -m optim_family study run results/zoo/zoo.toml --out runs/zoo || true
$python results/zoo/collect.py runs/zoo
