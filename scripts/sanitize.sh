#!/usr/bin/env bash
# Runs the tests of the code that the compiler can't check (kernels, threads, memory) where wrong addresses are seen: with
# AddressSanitizer, and under valgrind. Valgrind knows no AVX-512: there the kernels for AVX2 and the portable ones run.
set -euo pipefail
cd "$(dirname "$0")/.."

host=$(rustc -vV | sed -n 's/^host: //p')
tests='fast::'

if ! command -v valgrind >/dev/null; then
    echo "sanitize: valgrind is missing: apt-get install valgrind" >&2
    exit 1
fi

# The sanitizer's run-time library comes with the toolchain; the flag is for nightly compilers only, unless told so.
# A target is named so that build scripts and macros are left as they are.
echo "sanitize: AddressSanitizer"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitize \
    cargo test --locked --target "$host" -p kadr-inference --lib -- "$tests"
RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" CARGO_TARGET_DIR=target/sanitize \
    cargo test --locked --target "$host" -p kadr-inference --test engine

echo "sanitize: valgrind"
binary=$(cargo test --locked -p kadr-inference --lib --no-run --message-format=json 2>/dev/null |
    sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
PROPTEST_CASES=1 valgrind --quiet --error-exitcode=1 "$binary" --test-threads=1 "$tests"
