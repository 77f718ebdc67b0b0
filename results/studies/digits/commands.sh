#!/usr/bin/env bash
# The study that `make demo` runs. Its finished runs are stored without their checkpoints and are not executed again.
#   bash results/studies/digits/commands.sh
set -euo pipefail
cd "$(dirname "$0")/../../.."
here=results/studies/digits
mkdir -p runs/digits && cp -rn "$here"/runs/. runs/digits/
.venv/bin/optim-family study run digits --workers 2
.venv/bin/optim-family study report digits --to "$here"
# The picture of the interactive page, with Debian's chromium.
page=$(mktemp -d)
.venv/bin/optim-family compare runs/digits --out "$page" --html --format svg
chromium --headless --no-sandbox --hide-scrollbars --virtual-time-budget=5000 --window-size=1200,1040 \
    --screenshot="$here/page.png" "file://$page/comparison.html"
