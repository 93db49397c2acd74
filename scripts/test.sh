#!/bin/sh
# What `make test` runs once everything is set up: the lints, then every test. The tests come last, so that what
# cargo says of them is what is read last.
set -eu
cd "$(dirname "$0")/.."

began=$(date +%s)
scripts/lint.sh
echo "== lints took $(($(date +%s) - began)) s"

echo "== tests"
if [ -z "${KADR_FIXTURES-}" ]; then
    echo "KADR_FIXTURES is not set and ../shared is not there: tests that compare with reference data are ignored"
elif [ ! -d "$KADR_FIXTURES" ]; then
    echo "KADR_FIXTURES ($KADR_FIXTURES) is not a folder: tests that compare with reference data would fail" >&2
    exit 1
fi
exec scripts/cargo-test.sh
