#!/usr/bin/env bash
# Builds the extension with AddressSanitizer and UndefinedBehaviorSanitizer into build/asan, shows
# that it sees a planted overrun, and runs the tests of the native code against it (fewer examples).
# The CUDA kernels are not in it: their tests build them for the host, with the same sanitizers.
#   PYTHON=.venv/bin/python tests/votes/run_sanitized.sh [pytest arguments]
set -euo pipefail

root=$(cd "$(dirname "$0")/../.." && pwd)
python=$(command -v "${PYTHON:-python3}")
cxx=${CXX:-g++}
build=$root/build/asan
package=$build/package/benchrouter

runtime=$("$cxx" -print-file-name=libasan.so)
if [[ $runtime != /* ]]; then
    echo "error: $cxx has no libasan.so" >&2
    exit 1
fi

# The package's Python files beside the sanitized module, and no other module.
rm -rf "$build/package"
mkdir -p "$package"
for file in "$root"/benchrouter/*; do
    case $file in
        *.so | */__pycache__) ;;
        *) ln -s "$file" "$package/" ;;
    esac
done

rm -f "$build/CMakeCache.txt"
generator=()
if command -v ninja >/dev/null; then generator=(-GNinja); fi
cmake -S "$root" -B "$build" "${generator[@]}" -DCMAKE_CXX_COMPILER="$cxx" \
    -DCMAKE_BUILD_TYPE=Debug -DBENCHROUTER_SANITIZE=ON -DBENCHROUTER_CUDA=OFF \
    -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$package" \
    -DPython_EXECUTABLE="$python" -DPYBIND11_FINDPYTHON=ON \
    -Dpybind11_DIR="$("$python" -m pybind11 --cmakedir)" >/dev/null
cmake --build "$build" --parallel 2

# `python -m` puts the working directory first among the places of packages.
cd "$build/package"
# libstdc++ as well: the runtime looks for its __cxa_throw before any extension brings it in.
preload="$runtime $("$cxx" -print-file-name=libstdc++.so.6)"
export LD_PRELOAD=$preload PYTHONMALLOC=malloc
# Python leaks on purpose at exit.
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1
export BENCHROUTER_SANITIZED=1 BENCHROUTER_EXAMPLES="${BENCHROUTER_EXAMPLES:-150}"

if planted=$("$python" -c 'from benchrouter import _core; _core.overrun()' 2>&1) ||
    [[ $planted != *heap-buffer-overflow* ]]; then
    echo "error: the sanitized build did not report a planted overrun: $planted" >&2
    exit 1
fi
echo "planted overrun: reported"

exec "$python" -m pytest -c "$root/pyproject.toml" --rootdir "$root" -p no:cacheprovider -q \
    "$root/tests/votes/test_votes.py" "$root/tests/scores/test_prompt_scores.py" "$root/tests/scores/test_cells.py" "$root/tests/embeddings/test_attention.py" \
    "$root/tests/embeddings/test_quantize.py" "$root/tests/neighbours/test_codes.py" "$root/tests/votes/test_votes_on_device.py" "$@"
