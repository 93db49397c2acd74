#!/bin/sh
# Makes sure of the programs that building, the demo and the tests need. With root and apt-get it installs what is
# missing; elsewhere it only says what to type. It does nothing, and needs no network, when all is there.
# It installs no Rust and nothing of kadr's own (that goes into .kadr by nats.sh and clip.sh).
# usage: scripts/deps.sh [test|ci]     test: also what only tests use (a PostgreSQL server)
#                                      ci: also what only the checks of scripts and container files use, Python's venv, and
#                                      GStreamer: its RTSP server, which tests take for a camera, and a player; mpv; a browser
set -eu

has() { command -v "$1" >/dev/null 2>&1; }
# Debian keeps the server's programs off PATH.
has_postgres() { has initdb || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; }
has_venv() { python3 -c 'import venv, ensurepip' 2>/dev/null; }
has_camera() { /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null; }
# Its server speaks TLS by a library that it looks for only when asked.
has_camera_tls() { /usr/bin/python3 -c 'from gi.repository import Gio; Gio.TlsBackend.get_default().supports_tls() or exit(1)' 2>/dev/null; }
has_yaml() { python3 -c 'import yaml' 2>/dev/null || /usr/bin/python3 -c 'import yaml' 2>/dev/null; }

# The Debian packages of what is missing.
missing() {
    has make || echo make
    has c++ || has g++ || echo g++
    has nasm || echo nasm
    has ffprobe || echo ffmpeg
    has python3 && python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
    # Where there is dpkg: elsewhere the system has certificates of its own.
    if has dpkg && [ ! -e /etc/ssl/certs/ca-certificates.crt ]; then echo ca-certificates; fi
    case ${1-} in test | ci) has_postgres || echo postgresql ;; esac
    if [ "${1-}" = ci ]; then
        has shellcheck || echo shellcheck
        has_yaml || echo python3-yaml
        has_venv || echo python3-venv
        has chromedriver || echo chromium chromium-driver
        has gst-launch-1.0 || echo gstreamer1.0-tools
        has mpv || echo mpv
        has_camera || echo gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-good gstreamer1.0-plugins-bad
        has_camera_tls || echo glib-networking
        has openssl || echo openssl
    fi
}

packages=$(missing "${1-}" | tr '\n' ' ')
if [ -n "$packages" ] && has apt-get && [ "$(id -u)" = 0 ]; then
    echo "kadr: installing ${packages}by apt-get (a minute or two)"
    log=$(mktemp)
    # What apt-get says is shown where it fails; what is still missing is told below.
    # shellcheck disable=SC2086 # a list of words
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends $packages; } </dev/null >"$log" 2>&1; then
        echo "kadr: apt-get failed:" >&2
        grep '^[EW]:' "$log" | tail -n 4 >&2 || tail -n 4 "$log" >&2
    fi
    rm -f "$log"
    packages=$(missing "${1-}" | tr '\n' ' ')
fi

if has apt-get; then
    command="sudo apt-get install $packages"
elif has brew; then
    command="brew install $(echo "$packages" | sed 's/g++/gcc/; s/python3-pip/python/; s/python3-yaml/pyyaml/')"
else
    command="install, with your system's own tool, what Debian calls: $packages"
fi
failed=false
for package in $packages; do
    case $package in
    nasm)
        echo "kadr: warning: nasm is missing; video will be decoded 2 to 3 times slower. To mend it: $command" >&2
        ;;
    postgresql | python3-gi | gir1.2-* | gstreamer1.0-* | mpv | glib-networking | openssl | chromium*)
        echo "kadr: warning: $package is missing; tests that need it will fail. To mend it: $command" >&2
        ;;
    shellcheck | python3-yaml | python3-venv)
        echo "kadr: warning: $package is missing; what it checks is left out. To mend it: $command" >&2
        ;;
    *)
        echo "kadr: $package is missing. Type: $command" >&2
        failed=true
        ;;
    esac
done
if ! has cargo; then
    echo "kadr: Rust (cargo) is missing or not on PATH. See https://www.rust-lang.org/tools/install" >&2
    failed=true
fi
[ "$failed" = false ]
