#!/usr/bin/env bash
# What measuring costs, beside what else measures it; about a quarter of an hour on two quiet cores.
#   .venv/bin/python -m pip install '.[bench]' && bash results/benchmarks/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
for name in reading step product memory startup; do
  .venv/bin/python -m benchmarks "$name" >"results/benchmarks/$name.txt"
done
