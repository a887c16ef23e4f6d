#!/bin/sh
# Makes the screenshots beside this file: of the dashboard of a pool and of the timeline of a run, in a wide and a
# narrow window, light and dark. Then it prints how long the script of a page takes to draw a frame of a million
# tasks in 64 workers. Needs Chromium: CHROMIUM names it, if it has another name.
set -eu
cd "$(dirname "$0")/../.."
chromium=${CHROMIUM:-chromium}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cargo build --release -p procession --example dashboard --features dashboard
cargo build --release -p procession-cli --bins

browse() {
    "$chromium" --headless=new --no-sandbox --disable-gpu --hide-scrollbars --user-data-dir="$work/profile" "$@"
}
shot() { # name, page, size, colour scheme (0: dark, 1: light)
    browse --blink-settings=preferredColorScheme="$4" --window-size="$3" --virtual-time-budget=2000 \
        --screenshot="$PWD/docs/screenshots/$1.png" "file://$2"
}

target/release/examples/dashboard 2000 4
cp target/pool.html "$work/pool.html"
shot dashboard "$work/pool.html" 1400,1150 1
shot dashboard-dark "$work/pool.html" 1400,1150 0
shot dashboard-narrow "$work/pool.html" 400,1150 1

coordinator=target/release/coordinator
"$coordinator" --every -s ERROR -m 16 --retries 1 -d "$work/flags" --log-dir "$work/logs" --progress none || true
"$coordinator" timeline --log-dir "$work/logs" --html "$work/run.html"
shot timeline "$work/run.html" 1400,1150 1
shot timeline-narrow "$work/run.html" 400,1150 0

target/release/examples/dashboard 1000000 64
# The frames are drawn one after the other, each at another zoom; the time of the browser itself is not in it.
sed 's|</body>|<script>const times = []; for (let frame = 0; frame < 40; frame++) {\
run.zoom(frame < 20 ? 0.8 : 1.25); const began = performance.now(); run.drawNow(); times.push(performance.now() - began); }\
times.sort((a, b) => a - b); document.title = "frame: median " + times[20].toFixed(1) + " ms, longest " +\
times[39].toFixed(1) + " ms, " + run.bars.length + " bars in " + run.lanes.length + " lanes";</script></body>|' \
    target/pool.html >"$work/frames.html"
browse --dump-dom "file://$work/frames.html" | sed -n 's|.*<title>\(frame: .*\)</title>.*|\1|p'
