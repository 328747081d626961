#!/usr/bin/env bash
# The GPU tests, on a machine with at least one NVIDIA GPU and the packages installed. Only their files
# are read: the others' want packages that such a machine may lack.
set -euo pipefail
cd "$(dirname "$0")/.."
mapfile -t files < <(grep -rl --include='test_*.py' 'pytest\.mark\.gpu' tests)
python3 -m pytest -m gpu -p no:cacheprovider "$@" "${files[@]}"
