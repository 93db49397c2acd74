#!/bin/sh
# Runs the workspace's tests with cargo-nextest where it is installed, else with cargo test; arguments are passed on.
# Always the whole workspace, so that every call shares one build. It sets nothing up: that is the Makefile's part.
set -eu
cd "$(dirname "$0")/.."

if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --workspace --locked "$@"
fi
exec cargo test --workspace --locked --no-fail-fast "$@"
