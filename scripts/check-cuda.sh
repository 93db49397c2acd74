#!/usr/bin/env bash
# Type-checks kadr with the feature `cuda` on a machine without CUDA: a stand-in for NVIDIA's compiler makes empty kernels,
# so nothing that comes of it could run. With the real compiler on PATH it is `cargo check` and no more.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! command -v nvcc > /dev/null; then
    stand_in=$(mktemp -d)
    trap 'rm -rf "$stand_in"' EXIT
    mkdir "$stand_in/bin"
    cat > "$stand_in/bin/nvcc" << 'NVCC'
#!/usr/bin/env bash
# Writes what it is asked for, with nothing in it.
source= folder= output=
while [ $# -gt 0 ]; do
    case $1 in
        --version) echo "Cuda compilation tools, release 12.8, V12.8.0" && exit ;;
        --list-gpu-code) echo sm_80 && exit ;;
        -o) output=$2 && shift ;;
        --output-directory) folder=$2 && shift ;;
        *.cu) source=$1 ;;
    esac
    shift
done
if [ -n "$output" ]; then : > "$output"; fi
if [ -n "$folder" ]; then : > "$folder/$(basename "$source" .cu).ptx"; fi
NVCC
    chmod +x "$stand_in/bin/nvcc"
    export PATH="$stand_in/bin:$PATH" CUDA_HOME="$stand_in" CUDARC_CUDA_VERSION=12080 CUDA_COMPUTE_CAP=80
    echo "there is no nvcc: only types are checked" >&2
fi
cargo check --locked -p kadr --features cuda
