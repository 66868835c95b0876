#!/usr/bin/env bash
# tools/screenshot.sh HTML PNG WIDTH light|dark [HEIGHT]: a picture of a report as headless Chromium shows it.
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: tools/screenshot.sh HTML PNG WIDTH light|dark [HEIGHT]" >&2; exit 2; }
html=$(realpath "$1") png=$2 width=$3 height=${5:-2400}
scheme=1
[ "$4" = dark ] && scheme=0
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --blink-settings=preferredColorScheme=$scheme \
  --window-size="$width,$height" --virtual-time-budget=3000 --screenshot="$png" "file://$html" >/dev/null 2>&1
