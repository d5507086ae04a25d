# Shared by the scripts: finding a Python, making an environment.

# A name on PATH proves little (the shims of version managers fail when run), so
# each candidate is asked. Prints "MINOR PATH" for a final, ordinary CPython
# >= 3.11 with venv; builds without the GIL are left out, few wheels exist for them.
probe_python() {
    "$1" - 2>/dev/null <<'PY' || true
import sys, sysconfig
import ensurepip, venv
version = sys.version_info
if version[:2] >= (3, 11) and version.releaselevel == "final":
    if sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED"):
        print(version.minor, sys.executable)
PY
}

# "MINOR PATH" of every working Python, newest first, one line for each version.
list_pythons() {
    local candidate
    {
        for candidate in python3 python3.{11..20}; do
            type -ap "$candidate" || true
        done
        for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3 \
            "$HOME"/.local/share/uv/python/*/bin/python3; do
            [ -x "$candidate" ] && echo "$candidate"
        done
        true
    } | while read -r candidate; do
        probe_python "$candidate"
    done | sort -s -k1,1nr | awk '!seen[$1]++'
}

# fingerprint ARGS...: what an environment depends on: where the tree is, what it asks
# for, and what pip is told.
fingerprint() {
    pwd
    echo "$@"
    cat pyproject.toml constraints.txt
}

# ensure_venv FOLDER EXTRA [PIP ARGS...]: an environment with the package in place
# (editable), on the newest Python for which everything has a wheel: to compile what has
# none would take an hour or fail. Each set of extras leaves its own stamp, so that
# scripts/demo and scripts/test share one.
ensure_venv() {
    local folder=$1 extra=$2
    shift 2
    local stamp=$folder/.installed-${extra:-core}
    if "$folder/bin/python" -c '' 2>/dev/null &&
        { fingerprint "$@" | cmp -s - "$stamp" ||
            fingerprint "$@" | cmp -s - "$folder/.installed-test"; }; then
        return
    fi
    if [ -e "$folder" ] && [ ! -e "$folder/.place" ]; then
        echo "$folder was made by somebody else and is not touched: move it away." >&2
        return 1
    fi
    echo "== making $folder (a minute or two)"
    # After a move, scripts in the environment point to the old place.
    if "$folder/bin/python" -c '' 2>/dev/null && [ "$(cat "$folder/.place" 2>/dev/null)" = "$PWD" ] &&
        install "$folder" "$@" --editable ".${extra:+[$extra]}"; then
        fingerprint "$@" >"$stamp"
        return
    fi
    local minor python
    while read -r minor python; do
        "$python" -m venv --clear "$folder"
        pwd >"$folder/.place"
        if install "$folder" "$@" --editable ".${extra:+[$extra]}"; then
            fingerprint "$@" >"$stamp"
            return
        fi
        echo "not on Python 3.$minor" >&2
    done < <(list_pythons)
    echo "No working Python 3.11 or newer was found for which all packages have wheels." >&2
    return 1
}

# install FOLDER PIP ARGS...: modules are compiled when they are imported, which most
# never are.
install() {
    local folder=$1
    shift
    "$folder/bin/python" -m pip install -qq --no-compile --disable-pip-version-check \
        --only-binary=:all: "$@"
}
