#!/usr/bin/env bash
# Case 1 and Case 2 on 5,000 exact images of CIFAR-10; about 9 hours on one core.
#   bash results/studies/case-1-case-2-cifar10/commands.sh [IMAGES.npz JPEGS.tar.xz]
# IMAGES.npz holds x_train, y_train, x_test, y_test; JPEGS.tar.xz holds test/CLASS/*.jpg (see data.py).
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=results/studies/case-1-case-2-cifar10
images=${1:-../shared/data/cifar10-5k.npz} jpegs=${2:-../shared/data/cifar10-jpeg.tar.xz}
if [ ! -f "$images" ]; then echo "skipped: there is no file $images"; exit 0; fi
mkdir -p runs/data
[ -f runs/data/cifar10.npz ] || .venv/bin/python "$here/data.py" "$images" "$jpegs" runs/data/cifar10.npz
# Finished runs are stored without their checkpoints and are not executed again.
mkdir -p runs/case-1-case-2-cifar10 && cp -rn "$here"/runs/. runs/case-1-case-2-cifar10/
study() { .venv/bin/optim-family study "$1" case-1-case-2-cifar10 --set data.name=npz:runs/data/cifar10.npz "${@:2}"; }
study run --workers 2
study report --set test_set=jpeg --to "$here"
