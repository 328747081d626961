#!/usr/bin/env bash
# The GPU tests, on a machine with at least one NVIDIA GPU and the packages installed.
set -euo pipefail
cd "$(dirname "$0")/.."
python3 -m pytest -m gpu -p no:cacheprovider "$@" tests
