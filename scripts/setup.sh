#!/usr/bin/env bash
# bash scripts/setup.sh FILE...: makes .venv, or the folder that VENV names, and installs these requirement files and this
# checkout into it, editable: what runs is what lies here. A copy of each installed file is kept there, so that what is
# complete is used again and what was interrupted goes on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=${VENV:-.venv}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2> /dev/null
}

if ! fits "$venv/bin/python" || ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    python=
    for candidate in python3.11 python3.12 python3.13 python3; do
        if fits "$candidate"; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        echo "setup: no Python 3.11, 3.12 or 3.13 found; install Python 3.11 (python.org, apt, brew or pyenv)" >&2
        exit 1
    fi
    echo "setup: making $venv with $("$python" --version)"
    if ! "$python" -m venv --clear "$venv"; then
        echo "setup: $python cannot make $venv; on Debian and Ubuntu: apt install python3-venv" >&2
        exit 1
    fi
fi

for file in "$@"; do
    if ! cmp -s "$file" "$venv/$file"; then
        echo "setup: installing $file, once (requirements.txt takes 2 GB and a minute or two)"
        if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$file"; then
            echo "setup: $file could not be installed; check the network and the disk, then run the same command" >&2
            exit 1
        fi
        cp "$file" "$venv/$file"
    fi
done

# Anew where what is installed changed, or where it lies: the environment holds the path.
if ! { pwd && cat pyproject.toml setup.cfg; } | cmp -s - "$venv/installed"; then
    echo "setup: installing this checkout into $venv"
    if ! "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --editable .; then
        echo "setup: this checkout could not be installed; check the network and the disk, then run the same command" >&2
        exit 1
    fi
    { pwd && cat pyproject.toml setup.cfg; } > "$venv/installed"
fi
