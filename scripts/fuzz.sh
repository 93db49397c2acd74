#!/bin/sh
# Fuzzes what reads untrusted bytes: each target for so many seconds (60), from a corpus that begins with small real files.
# It builds everything once more, instrumented, into target/fuzz: the first time takes long.
set -eu
cd "$(dirname "$0")/.."

seconds=${1:-60}
export CARGO_TARGET_DIR="$PWD/target/fuzz"
# The instrumentation is not stable; the compiler stays the pinned one.
export RUSTC_BOOTSTRAP=1
# A panic is found without AddressSanitizer, and there is no unsafe code here for it to look at.
options="--sanitizer none"

if ! command -v cargo-fuzz >/dev/null; then
    echo "kadr: cargo-fuzz is missing: cargo install cargo-fuzz --locked" >&2
    exit 1
fi

# $1: the target. Small real files; what fuzzing finds by itself is kept beside them.
seed() {
    corpus=runner/fuzz/corpus/$1
    mkdir -p "$corpus"
    picture="-v error -f lavfi -i testsrc2=s=64x48:r=5 -t 1 -pix_fmt yuv420p -c:v libx264 -preset ultrafast"
    case $1 in
    file)
        # shellcheck disable=SC2086
        {
            ffmpeg -nostdin -y $picture "$corpus/plain.mp4"
            ffmpeg -nostdin -y $picture -movflags frag_keyframe+empty_moov "$corpus/fragmented.mp4"
            ffmpeg -nostdin -y $picture "$corpus/bare.h264"
            ffmpeg -nostdin -y $picture "$corpus/film.mkv"
        }
        for kind in png jpg; do
            ffmpeg -nostdin -y -v error -f lavfi -i testsrc2=s=16x16 -frames:v 1 "$corpus/image.$kind"
        done
        ;;
    multipart)
        printf 'ap--b\r\nContent-Type: image/jpeg\r\nContent-Length: 3\r\n\r\nabc\r\n--b\r\n\r\nde\r\n--b--\r\n' >"$corpus/parts"
        ;;
    framing)
        printf 'pRTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 3\r\n\r\nabc$\001\000\002deRTSP/1.0 200 OK\r\n\r\n' >"$corpus/answers"
        ;;
    esac
}

for crate in runner api; do
    for target in $(cd $crate/fuzz && sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2); do
        [ "$crate" = runner ] && seed "$target"
        echo "== $crate: $target, $seconds s"
        # shellcheck disable=SC2086
        (cd "$crate" && cargo fuzz run $options "$target" -- \
            -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1)
    done
done
