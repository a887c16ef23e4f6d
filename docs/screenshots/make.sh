#!/bin/sh
# Makes the screenshots beside this file: of the dashboard of a pool, in a wide and a narrow window, light
# and dark. Needs Chromium: CHROMIUM names it, if it has another name.
set -eu
cd "$(dirname "$0")/../.."
chromium=${CHROMIUM:-chromium}
profile=$(mktemp -d)
trap 'rm -rf "$profile"' EXIT

cargo run --release -p procession --example dashboard --features dashboard -- 2000 4

shot() { # name, size, colour scheme (0: dark, 1: light)
    "$chromium" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$profile" \
        --blink-settings=preferredColorScheme="$3" --window-size="$2" --virtual-time-budget=2000 \
        --screenshot="$PWD/docs/screenshots/$1.png" "file://$PWD/target/pool.html"
}
shot dashboard 1400,1150 1
shot dashboard-dark 1400,1150 0
shot dashboard-narrow 400,1150 1
