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
  for candidate in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/"python$1" python3; do
    if [ -z "$(python_trouble "$candidate")" ] && [ "$(python_version "$candidate")" = "$1" ]; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

python_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'
}

# Prints the interpreter to use: $PYTHON, else the first of these versions that there is, the tested
# one of the faster pins before those after it and 3.11 last, else whatever newer one python3 is.
find_python() {
  local trouble version
  if [ -n "${PYTHON:-}" ]; then
    trouble=$(python_trouble "$PYTHON")
    [ -z "$trouble" ] || fail "PYTHON=$PYTHON $trouble"
    echo "$PYTHON"
    return
  fi
  for version in 3.12 3.13 3.14 3.11; do
    if find_python_version "$version"; then
      return
    fi
  done
  trouble=$(python_trouble python3)
  [ -z "$trouble" ] || fail "no usable Python 3.11 or newer was found (python3 $trouble);" \
    "install one or set PYTHON=/path/to/python"
  echo python3
}

# Says why "$1", a Python of version "$2", is the one.
tell_choice() {
  local why="3.12 is what the pins are tested on; newer ones come next, then 3.11"
  if [ -n "${PYTHON:-}" ]; then
    why="PYTHON says so"
  elif [ "$2" = 3.11 ]; then
    why="there is no 3.12 or newer"
  fi
  if [ "$2" = 3.11 ]; then
    why="$why; bfloat16 takes about twice as long on CPU with the JAX of 3.11 as with that of 3.12"
  fi
  echo "Using $1 (Python $2): $why"
}

# Makes or reuses the environment, with the packages of the requirement files "$@" and this checkout
# in it, and sets VENV to its folder. Does nothing where nothing changed.
setup_venv() {
  local python version stamp wanted
  python=$(find_python) || exit 2
  version=$(python_version "$python")
  tell_choice "$python" "$version"
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
