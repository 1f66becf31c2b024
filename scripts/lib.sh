# SPDX-License-Identifier: Apache-2.0
# Shared by the scripts beside it. Sourced, with the repository's root as the working directory.

say() { printf '== %s\n' "$*"; }

# Installs the Debian packages of scripts/apt-packages.txt that are missing.
install_packages() {
  local wanted missing=()
  mapfile -t wanted < <(sed -e 's/#.*//' -e 's/[[:space:]]//g' -e '/^$/d' scripts/apt-packages.txt)
  local package
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return
  say "installing ${missing[*]}"
  local root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -qq
  DEBIAN_FRONTEND=noninteractive "${root[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}

# Makes .venv hold exactly the pinned Python packages (Debian's own interpreter, so that the pins mean
# the same everywhere), and the client's generated modules.
install_python() {
  local stamp=.venv/requirements.installed
  if ! cmp -s python/requirements.txt "$stamp"; then
    say "installing Python packages into .venv"
    [ -x .venv/bin/python ] || /usr/bin/python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check -r python/requirements.txt
    cp python/requirements.txt "$stamp"
  fi
  .venv/bin/python python/maskkv_build.py
}

# build PRESET [TARGET...]: configures when needed, then builds what is out of date.
build() {
  local preset=$1
  shift
  say "building $preset"
  # An unchanged configuration takes a second; its chatter helps only when it fails.
  cmake --preset "$preset" >"build-$preset.log" 2>&1 || { cat "build-$preset.log"; return 1; }
  rm -f "build-$preset.log"
  cmake --build --preset "$preset" ${1:+--target "$@"} | tail -n 3
}

# The random model that benches run on, made when it is missing; prints its folder. After install_python.
bench_model() {
  local model=build/bench-model
  [ -f "$model/model.safetensors" ] || PYTHONPATH=python .venv/bin/python -m \
    maskkv_oracle.random_checkpoint --hidden 512 --layers 8 --heads 8 --ffn 1536 --vocab 4096 \
    --bf16 --out "$model" >&2
  printf '%s\n' "$model"
}
