# `just` lists these; `just NAME` runs one.

_list:
    @just --list

# What must pass before a change lands
ci:
    .ci/run

# The same, and what takes longer: release-mode tests, the declared Rust version, other systems
full:
    .ci/full

# Tests whose name contains NAME, in all packages
test NAME='':
    cargo test {{NAME}}

# The whole suite five times, to find tests that depend on timing
soak:
    for round in 1 2 3 4 5; do echo "round $round"; cargo test -q || exit 1; done

# Many random schedules of the scheduler
simulate SCHEDULES='1000000':
    cargo run --release -p procession --example simulate -- --schedules {{SCHEDULES}}

# Benchmarks whose name contains NAME
bench NAME='':
    cargo bench -p procession --bench pool -- {{NAME}}

# How many crates the library brings; at most 36 with itself
crates:
    cargo tree -e normal -p procession --no-default-features --prefix none --no-dedupe | sort -u | wc -l

# The documentation, in a browser
doc:
    cargo doc --no-deps --open

# The screenshots in docs/screenshots, with Chromium
screenshots:
    docs/screenshots/make.sh
