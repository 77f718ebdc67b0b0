#!/usr/bin/env bash
# Every optimizer on 2,000 and 1,000 exact images of CIFAR-10; about 12 hours on one core.
#   bash results/studies/bn-cifar10-cpu/commands.sh [IMAGES.npz JPEGS.tar.xz]
# The files are those of ../case-1-case-2-cifar10/commands.sh.
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=results/studies/bn-cifar10-cpu others=results/studies/case-1-case-2-cifar10
images=${1:-../shared/data/cifar10-5k.npz} jpegs=${2:-../shared/data/cifar10-jpeg.tar.xz}
if [ ! -f "$images" ]; then echo "skipped: there is no file $images"; exit 0; fi
mkdir -p runs/data runs/rates runs/bn-cifar10-cpu
[ -f runs/data/cifar10.npz ] || .venv/bin/python "$others/data.py" "$images" "$jpegs" runs/data/cifar10.npz
data=(--set data.name=npz:runs/data/cifar10.npz)
# Finished runs are stored without their checkpoints and are not executed again.
cp -rn "$here"/rates/. runs/rates/
cp -rn "$here"/runs/. "$others"/runs/gd-* runs/bn-cifar10-cpu/
.venv/bin/optim-family study run "$here/rates.toml" --out runs/rates "${data[@]}" --workers 2
.venv/bin/optim-family study run bn-cifar10-cpu "${data[@]}" --workers 2
.venv/bin/optim-family study report bn-cifar10-cpu "${data[@]}" --set test_set=jpeg --to "$here"
