#!/bin/sh
# Checks that need no test to run: format, clippy with warnings denied, the scripts, the container files' form.
# A checker that is not installed is left out and named, but rustfmt and clippy, which the toolchain pins.
set -eu
cd "$(dirname "$0")/.."

echo "== format"
cargo fmt --all --check
echo "== scripts"
if command -v shellcheck >/dev/null 2>&1; then
    shellcheck scripts/*.sh .ci/run
else
    echo "shellcheck is not installed: left out"
fi
echo "== container files"
scripts/check-containers.py
echo "== clippy"
cargo clippy --workspace --all-targets --locked -- -D warnings
