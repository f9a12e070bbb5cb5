# shellcheck shell=bash
# Sourced by quickstart.sh, test.sh and .ci/run: finds a Python and keeps a virtual environment.
#
#   PYTHON            the interpreter to use instead of searching for one
#   SPECCASCADE_VENVS where the virtual environments go instead of .venv
#
# Speaks bash 3.2, which is what macOS has.

fail() {
  echo "error: $*" >&2
  exit 2
}

# Says on standard output what keeps "$1" from being used; nothing where nothing does.
python_trouble() {
  "$1" -c '
import sys
if sys.version_info < (3, 11):
    print("is Python %d.%d, and 3.11 or newer is needed" % sys.version_info[:2])
else:
    try:
        import ensurepip, venv
    except ImportError:
        print("has no venv module; install it (Debian, Ubuntu: apt install python3-venv)")
' 2>/dev/null || echo "does not run"
}

# Prints a usable interpreter of version "$1" (such as 3.12), on the PATH or kept by pyenv.
find_python_version() {
  local candidate
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1"; do
    if [ -z "$(python_trouble "$candidate")" ]; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

# Prints the interpreter to use: $PYTHON, else python3, else the newest python3.x there is.
find_python() {
  local trouble minor
  if [ -n "${PYTHON:-}" ]; then
    trouble=$(python_trouble "$PYTHON")
    [ -z "$trouble" ] || fail "PYTHON=$PYTHON $trouble"
    echo "$PYTHON"
    return
  fi
  if [ -z "$(python_trouble python3)" ]; then
    echo python3
    return
  fi
  for minor in 19 18 17 16 15 14 13 12 11; do
    if find_python_version "3.$minor"; then
      return
    fi
  done
  fail "no usable Python 3.11 or newer was found (python3 $(python_trouble python3));" \
    "install one or set PYTHON=/path/to/python"
}

# Makes or reuses the environment, with the packages of the requirement files "$@" and this checkout
# in it, and sets VENV to its folder. Does nothing where nothing changed.
setup_venv() {
  local python version stamp wanted
  python=$(find_python) || exit 2
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  VENV=${SPECCASCADE_VENVS:-$PWD/.venv}/py$version
  if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
    echo "Making a virtual environment in $VENV"
    "$python" -m venv --clear "$VENV" || fail "$python could not make a virtual environment"
  fi
  stamp=$VENV/installed-${!#}
  wanted=$(echo "$PWD" && cat "$@" pyproject.toml)
  if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    echo "Installing ${!#} for Python $version (a minute or two, 1.1 GB)"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check -r "${!#}" ||
      fail "pip could not install ${!#}; is there a network?"
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e . ||
      fail "pip could not install this checkout"
    echo "$wanted" >"$stamp"
  fi
}
