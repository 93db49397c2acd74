#!/bin/sh
# Makes sure of the Python environment in which `make bench-inference` and `make bench-pipeline` measure kadr's peers:
# .kadr/peers, a virtual environment of its own. Needs no network once it is there. Without it they measure kadr alone.
set -eu
cd "$(dirname "$0")/.."

here=.kadr/peers
pinned='onnxruntime==1.32.0 openvino==2026.4.1 onnx==1.23.2 numpy==2.4.6 safetensors==0.8.0 opencv-python-headless==5.0.0.93'

# What is in it is written there last: a folder without it was left unfinished, one with another list is of another time.
if [ "$(cat "$here/pinned" 2>/dev/null)" = "$pinned" ]; then
    exit 0
fi

without_peers() {
    echo "kadr: $1" >&2
    echo "kadr: the peers are left out until then" >&2
    exit 1
}

command -v python3 >/dev/null 2>&1 || without_peers "python3 is missing: install Python 3.11 or newer"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    without_peers "$(python3 --version) is too old for what is pinned: put Python 3.11 or newer on PATH as python3"
python3 -c 'import venv, ensurepip' 2>/dev/null ||
    without_peers "Python's venv or pip is missing: install what Debian calls python3-venv and python3-pip"

rm -rf "$here"
echo "kadr: making $here: $pinned (some 500 MB)" >&2
mkdir -p .kadr
python3 -m venv "$here" || without_peers "the virtual environment $here can't be made"
# shellcheck disable=SC2086 # a list of words
"$here/bin/python" -m pip install --quiet --disable-pip-version-check --retries 2 --timeout 30 \
    --only-binary=:all: $pinned || without_peers "pip could not install $pinned: is there a network?"
echo "$pinned" >"$here/pinned"
