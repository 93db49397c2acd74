#!/bin/sh
# Says by its exit status whether FILE is there and has this SHA-256. It prints and changes nothing.
# usage: scripts/sha256.sh SHA256 FILE
set -eu

[ -f "$2" ] || exit 1
if command -v sha256sum >/dev/null 2>&1; then
    printf '%s  %s\n' "$1" "$2" | sha256sum -c - >/dev/null 2>&1
else
    printf '%s  %s\n' "$1" "$2" | shasum -a 256 -c - >/dev/null 2>&1
fi
