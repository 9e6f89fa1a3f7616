#!/usr/bin/env bash
# Sets up the environment with the extra `test` and runs the test suite; no network after that.
#   bash launch/test.sh [--fast] [--coverage] [any arguments of pytest]
# --fast leaves out the tests marked slow; --coverage prints the lines that no test reaches. TESSERA_VENV chooses the
# environment's folder.
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
venv=${TESSERA_VENV:-$root/.venv}

fast=
for argument in "$@"; do
    shift
    case "$argument" in
        --fast) fast=yes ;;
        --coverage) set -- "$@" --cov=research --cov-report=term:skip-covered ;;
        *) set -- "$@" "$argument" ;;
    esac
done
if [ -n "$fast" ]; then set -- -m 'not slow' "$@"; fi

bash "$root/launch/quickstart.sh" --setup_only --extras=test --venv="$venv"
python=$venv/bin/python
if [ ! -x "$python" ]; then python=$venv/Scripts/python.exe; fi
"$python" -m pip install --quiet --disable-pip-version-check --no-deps -r "$root/launch/foreign.txt"

export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}" HF_HUB_OFFLINE=1
unset PYTHONDONTWRITEBYTECODE  # tests start many programs, which else compile our modules again
cd "$root"
exec "$python" -m pytest -n 2 "$@"
