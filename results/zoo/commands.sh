#!/usr/bin/env bash
# The zoo: every optimizer at the best learning rate of the same grid, on three seeds.
#   bash results/zoo/commands.sh
# Finished runs are not computed again; an interrupted one resumes.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=.venv/bin/python
$python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
  --upgrade --target runs/zoo-plugin examples/plugin
export PYTHONPATH=$PWD:$PWD/runs/zoo-plugin OMP_NUM_THREADS=1
$python results/zoo/train.py runs/zoo
$python results/zoo/collect.py runs/zoo
