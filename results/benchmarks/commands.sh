#!/usr/bin/env bash
# The cost of a measurement, compared with other libraries; two hours on two shared cores, most of it for the other libraries.
#   .venv/bin/python -m pip install '.[bench]' && bash results/benchmarks/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../.."
for name in reading reading_cifar reading_by_size reading_in_study accuracy sampled sample_size step product memory startup report; do
  .venv/bin/python -m benchmarks "$name" >"results/benchmarks/$name.txt"
done
