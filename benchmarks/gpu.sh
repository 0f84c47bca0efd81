#!/usr/bin/env bash
# Builds the extension in place, runs the tests marked gpu and the benchmarks on the device (those that
# $BENCHMARKS names; default: all that take one, with --quick), and leaves JSON and a log in $OUT
# (default: benchmarks/results). Takes the `python` on PATH, needs no network, makes its own inputs, and
# ends within nine minutes. Without a device it says what it skipped; its exit code is that of the first
# step that failed.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-benchmarks/results}
limit=$((SECONDS + ${LIMIT_S:-530}))
mkdir -p "$out"
exec > >(tee "$out/gpu.log") 2>&1

failed=0
# Runs a step in what is left of the time, at most $1 seconds.
step() {
    local most=$1 left=$((limit - SECONDS))
    shift
    if ((left < 10)); then
        echo "skipped: no time left for: $*"
        failed=${failed/#0/124}
        return
    fi
    echo "== $* (at most $((left < most ? left : most)) s)"
    timeout --kill-after=10 "$((left < most ? left : most))" "$@"
    local code=$?
    if ((code)); then
        echo "failed with $code: $*"
        failed=${failed/#0/$code}
    fi
}

echo "benchrouter $(git rev-parse --short=12 HEAD 2>/dev/null || echo 'of an unknown commit'), $(python --version)"
if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader
fi
if command -v nvcc >/dev/null; then
    echo "nvcc: $(nvcc --version | tail -1)"
else
    echo "nvcc is not on PATH: without it the extension is built without CUDA kernels"
fi

build=${BUILD:-build/in-place}
generator=()
if command -v ninja >/dev/null; then generator=(-GNinja); fi
step 120 cmake -S . -B "$build" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$PWD/benchrouter" -DPython_EXECUTABLE="$(command -v python)" \
    -DPYBIND11_FINDPYTHON=ON -Dpybind11_DIR="$(python -m pybind11 --cmakedir)" \
    -DBENCHROUTER_CUDA="${BENCHROUTER_CUDA:-AUTO}"
step 240 cmake --build "$build" --parallel
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"

# pytest exits with 5 where it finds no test: that would be a mistake here as well.
step 150 python -m pytest -m gpu -rs -q -p no:cacheprovider

device() { python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; }
kernels() { python -c 'import sys; from benchrouter import _core; sys.exit(not _core.has_cuda)'; }
no_device="torch finds no CUDA device on this machine"
no_kernels="the extension was built without CUDA kernels"

# Each tensor an allocation of its own, so that a read beyond one is seen.
for tool in memcheck racecheck; do
    if ! command -v compute-sanitizer >/dev/null; then
        echo "skipped: compute-sanitizer --tool $tool: it is not on PATH"
    elif ! device; then
        echo "skipped: compute-sanitizer --tool $tool: $no_device"
    elif ! kernels; then
        echo "skipped: compute-sanitizer --tool $tool: $no_kernels"
    else
        step 90 env PYTORCH_NO_CUDA_MEMORY_CACHING=1 BENCHROUTER_EXAMPLES=150 \
            compute-sanitizer --tool "$tool" --error-exitcode 9 \
            python -m pytest -m gpu -q -p no:cacheprovider tests/votes/test_votes_on_device.py \
            -k "votes_equal or decisions_equal or expected_scores_equal or beyond_a_byte"
    fi
done

if device; then
    machine=$(nvidia-smi --query-gpu=name --format=csv,noheader | head -1 | tr -c 'A-Za-z0-9\n' '-' | tr 'A-Z' 'a-z')
    # All of them fit into the time only with --quick; those that BENCHMARKS names run in full.
    quick=()
    if [[ -z ${BENCHMARKS:-} ]]; then quick=(--quick); fi
    for name in ${BENCHMARKS:-gpu_pipeline encode peers latency throughput}; do
        step 480 python "benchmarks/$name.py" --device cuda "${quick[@]}" \
            --json "$out/$name-cuda-${machine#nvidia-}-$(date +%F).json"
    done
else
    echo "skipped: benchmarks --device cuda: $no_device"
fi
echo "== $((SECONDS)) s in all, exit code $failed"
exit "$failed"
