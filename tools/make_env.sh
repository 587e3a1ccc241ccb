#!/bin/sh
# Makes .venv from requirements.lock, with the quickest installer at hand. `make .venv` calls it when needed.
# PYTHON=/path/to/python chooses the Python.
set -eu
cd "$(dirname "$0")/.."

stamp=.venv/.installed
export UV_SYSTEM_CERTS=1 # trust what the machine trusts, as git and curl do; some networks have a proxy of their own
begun=$(date +%s)

say() { printf '[.venv] %s (%s s)\n' "$*" "$(($(date +%s) - begun))"; }

fail() {
    printf '[.venv] %s\n' "$@" >&2
    exit 1
}

# A name on PATH may be a shim that cannot run, so only running it tells.
in_range() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1; }
makes_venv() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() { # $1: a further condition
    condition=$1
    if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3.13 python3.12 python3.11 python3 python; fi
    for name; do
        if in_range "$name" && "$condition" "$name"; then
            echo "$name"
            return
        fi
    done
}

explain_missing_python() {
    bare=$(find_python true)
    if [ -n "$bare" ]; then
        version=$("$bare" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        fail "Python $version is here, but Debian and Ubuntu keep its venv module in a package of its own:" \
            "    sudo apt install python$version-venv" "then run this again."
    fi
    fail "This course needs Python 3.11, 3.12 or 3.13, and found none that runs." \
        "    Debian, Ubuntu, WSL:  sudo apt install python3 python3-venv" \
        "    macOS (Homebrew):     brew install python@3.12" \
        "or point to one (PYTHON is now '${PYTHON:-}'): PYTHON=/path/to/python make .venv"
}

explain_failed_install() {
    case "$(uname -sm)" in
    "Darwin x86_64") hint="PyTorch no longer ships for Macs with Intel chips: take the conda way in README.md." ;;
    *) hint="Is the network up, and are 8 GB of disk free? Run the same command again to continue." ;;
    esac
    fail "The packages could not be installed; the lines above say why." "$hint"
}

# uv brings its own means to make an environment, and fetches a Python where none is found.
create_with_uv() {
    python=$(find_python true)
    say "creating the environment with uv and ${python:-a Python that uv fetches}"
    uv venv --quiet --seed --python "${python:->=3.11,<3.14}" .venv || fail "uv found no Python from 3.11 to 3.13 and could not fetch one."
}

create_with_venv() {
    say "creating the environment with $python -m venv"
    "$python" -m venv .venv
    say "installing uv into it"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check uv || say "no uv to be had: going on with pip"
}

install() {
    if [ -n "$uv" ]; then
        "$uv" pip install --quiet --python .venv/bin/python "$@"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "$@"
    fi
}

uv=$(command -v uv || true)

# Without the stamp, an environment is half made: nothing in it is trusted. With it, it is brought up to date.
if [ ! -f "$stamp" ]; then
    if [ -z "$uv" ]; then
        python=$(find_python makes_venv)
        [ -n "$python" ] || explain_missing_python
    fi
    if [ -e .venv ]; then
        say "removing an unfinished or moved environment"
        rm -rf .venv
    fi
    if [ -n "$uv" ]; then create_with_uv; else create_with_venv; fi
fi
rm -f "$stamp"
if [ -z "$uv" ] && [ -x .venv/bin/uv ]; then uv=.venv/bin/uv; fi

say "installing the packages of requirements.lock; the first time PyTorch is a download of minutes"
install -r requirements.lock || explain_failed_install
say "installing the course itself"
install --no-deps -e '.[lab]' || explain_failed_install

pwd -P >"$stamp" # last: an interrupted installation leaves none
say "the environment is ready in .venv"
