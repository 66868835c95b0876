#!/usr/bin/env bash
# tools/screenshot.sh HTML PNG WIDTH light|dark [HEIGHT [CARD]]: a picture of a report as headless Chromium shows it; of the card with the title
# CARD alone.
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: tools/screenshot.sh HTML PNG WIDTH light|dark [HEIGHT [CARD]]" >&2; exit 2; }
html=$(realpath "$1") png=$2 width=$3 height=${5:-2400}
if [ -n "${6:-}" ]; then
  copy=$(mktemp --suffix=.html)
  trap 'rm -f "$copy"' EXIT
  { cat "$html"; printf '<script>for (const e of document.querySelectorAll("h1, .claim, .lead, .figures")) e.remove(); for (const c of document.querySelectorAll(".card")) if (c.firstChild.textContent !== "%s") c.remove();</script>' "$6"; } >"$copy"
  html=$copy
fi
scheme=1
[ "$4" = dark ] && scheme=0
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --blink-settings=preferredColorScheme=$scheme \
  --window-size="$width,$height" --virtual-time-budget=3000 --screenshot="$png" "file://$html" >/dev/null 2>&1
