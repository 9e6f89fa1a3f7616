#!/usr/bin/env bash
# Installs the project and trains three models: finds a Python interpreter and runs quickstart.py.
#   bash launch/quickstart.sh [--setup_only] [--extras=test,cuda] [--venv=PATH]
# PYTHON=/path/to/python chooses the interpreter. Written for any POSIX shell.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)

if [ -n "${PYTHON:-}" ]; then
    if ! command -v "$PYTHON" >/dev/null 2>&1; then
        echo "quickstart: PYTHON=$PYTHON is not a program; give the path of a Python 3.11 to 3.13" >&2
        exit 1
    fi
    exec "$PYTHON" "$here/quickstart.py" "$@"
fi

unfit=
for candidate in python3 python3.13 python3.12 python3.11 python; do
    if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then
        exec "$candidate" "$here/quickstart.py" "$@"
    fi
    if [ -z "$unfit" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 6))' >/dev/null 2>&1; then
        unfit=$candidate
    fi
done
if [ -n "$unfit" ]; then
    exec "$unfit" "$here/quickstart.py" "$@"  # which says what is wrong with this version
fi
echo "quickstart: no Python found; install Python 3.11, 3.12 or 3.13, or name one: PYTHON=/path/to/python3 bash launch/quickstart.sh" >&2
exit 1
