#!/usr/bin/env bash
# Make .venv, or refresh it when pyproject.toml changed.
#
# Usage: scripts/venv.sh runtime|dev      (dev: with the linters and test tools)
set -euo pipefail
cd "$(dirname "$0")/.."
flavour=${1:-dev}

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
  local name
  for name in python3.13 python3.12 python3.11 python3; do
    if command -v "$name" >/dev/null && is_new_enough "$name"; then
      # A shim (pyenv, asdf) decides by directory: the venv must name the interpreter itself.
      "$name" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  echo "no Python from 3.11 on PATH: install python3 (3.11 or newer)" >&2
  return 1
}

# Debian and Ubuntu package ensurepip apart from the interpreter.
ensure_venv_module() {
  local python=$1 version
  "$python" -c 'import ensurepip, venv' 2>/dev/null && return
  version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  echo "installing python$version-venv"
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update </dev/null
  apt-get -qq -o Dpkg::Use-Pty=0 install --no-install-recommends "python$version-venv" </dev/null >/dev/null
}

stamp_of() { { echo "$1"; cat pyproject.toml; } | sha256sum | cut -d' ' -f1; }

is_fresh() {
  local flavour
  for flavour in "$@"; do
    [ "$(cat ".venv/cais-$flavour.stamp" 2>/dev/null)" = "$(stamp_of "$flavour")" ] && return
  done
  return 1
}

make_venv() {
  local python
  python=$(find_python)
  ensure_venv_module "$python"
  echo "making .venv with $("$python" --version)"
  "$python" -m venv .venv
  # Python 3.11 brings it, nothing here needs it, and it delays every interpreter by a millisecond.
  .venv/bin/python -m pip uninstall -qq --disable-pip-version-check --yes setuptools
}

# Isolated programs write no bytecode, so what an editable install runs is compiled here.
compile_sources() { .venv/bin/python -m compileall -q src; }

[ -x .venv/bin/python ] && is_new_enough .venv/bin/python || make_venv
case "$flavour" in
  runtime) is_fresh runtime dev && { compile_sources; exit 0; }; what=. ;;
  dev) is_fresh dev && { compile_sources; exit 0; }; what='.[dev]' ;;
  *) echo "$0: unknown flavour $flavour" >&2; exit 2 ;;
esac
echo "installing cais and what it needs into .venv"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --editable "$what"
stamp_of "$flavour" >".venv/cais-$flavour.stamp"
compile_sources
