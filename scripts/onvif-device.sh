#!/bin/sh
# Makes sure of an ONVIF device that nobody here wrote (oxvif's), which one test asks: .kadr/onvif-device. It takes some
# minutes; without it that test is left out.
set -eu
cd "$(dirname "$0")/.."

source=runner/tests/peers/onvif
here=.kadr/onvif-device
if [ -x "$here" ] && [ "$(find $source -newer $here -type f | wc -l)" = 0 ]; then
    exit 0
fi
mkdir -p .kadr
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
echo "kadr: building $here" >&2
if ! CARGO_TARGET_DIR="$build" cargo build --quiet --locked --manifest-path $source/Cargo.toml; then
    echo "kadr: oxvif's device can't be built: is there a network? Its test is left out until then" >&2
    exit 1
fi
mv "$build/debug/onvif-device" $here
touch $here
