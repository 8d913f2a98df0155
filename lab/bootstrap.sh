#!/usr/bin/env bash
# Installs what the lab and its tests need on a fresh Debian 12 or Ubuntu 22.04/24.04: system packages, uv, Python,
# the locked Python and collection dependencies. Quick and silent when nothing is missing.
#   lab/bootstrap.sh [--machine] [--qemu]
#     --machine: also refuse a machine that is too small for a lab
#     --qemu: also install what labs of virtual machines need
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/quote-platform
state=${XDG_STATE_HOME:-$HOME/.local/state}/quote-platform
private=$cache/uv-tool
# Certificates of the system: a company may have its own.
export UV_CACHE_DIR=$cache/uv UV_SYSTEM_CERTS=true DEBIAN_FRONTEND=noninteractive
PATH=$private/bin:$PATH
mkdir -p "$cache" "$state/logs"
log=$state/logs/bootstrap.log

refused=0
refuse() { printf 'bootstrap: %s\n' "$*" >&2; refused=1; }
# What a failing step printed, and the next thing to do.
run() {
  local title=$1 started=$SECONDS
  shift
  printf 'bootstrap: %s\n' "$title" >&2
  if ! "$@" >"$log" 2>&1; then
    tail -n 15 "$log" >&2
    printf 'bootstrap: failed: %s (all of it in %s); run the same command again after the repair\n' "$title" "$log" >&2
    exit 1
  fi
  printf 'bootstrap: done in %d s\n' $((SECONDS - started)) >&2
}

lists=(lab/packages.txt) machine=
for option; do
  case $option in
    --machine) machine=1 ;;
    --qemu) lists+=(lab/packages-qemu.txt) ;;
    *) refuse "no such option: $option; there are --machine and --qemu" ;;
  esac
done

if [[ -n $machine ]]; then
  # Coarse, before anything is installed; `lab up` judges what is free more closely.
  cores=$(nproc) memory=$(awk '/^MemTotal:/ {print int($2 / 1048576)}' /proc/meminfo)
  disk=$(df --output=avail -BG "$cache" | tail -n 1 | tr -dc 0-9)
  if [[ -d $cache/mirror/www ]]; then needed=10; else needed=30; fi
  ((EUID == 0)) || refuse "a lab needs root for its containers and networks: run this as root or with sudo"
  ((cores >= 2)) || refuse "a lab needs 2 CPU cores, this machine has $cores"
  ((memory >= 10)) || refuse "a lab needs a machine with 11 GiB of memory, this one has $memory"
  ((disk >= needed)) || refuse "a lab needs $needed GB of free disk, $cache has $disk: free some or set XDG_CACHE_HOME"
  [[ -c /dev/net/tun ]] || refuse "/dev/net/tun is missing: load the kernel module tun, or allow the device"
  [[ -w /sys/fs/cgroup ]] || refuse "/sys/fs/cgroup is read-only: nodes cannot make control groups"
fi

missing=()
installed=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' 2>/dev/null | sed -n 's/ installed$//p')
while read -r line; do
  [[ -n $line && $line != \#* ]] || continue
  package=${line%%[:?]*} command=
  [[ $line != *:* ]] || command=${line#*:}
  if [[ -n $command ]]; then command -v "$command" >/dev/null && continue; fi
  grep -qxF "$package" <<<"$installed" || missing+=("$line")
done < <(cat "${lists[@]}")

if ((${#missing[@]} > 0)); then
  # shellcheck source=/dev/null
  system=$(. /etc/os-release && echo "$ID $VERSION_ID")
  case $system in
    "debian 12" | "debian 13" | "ubuntu 22.04" | "ubuntu 24.04") ;;
    *) refuse "$system is not Debian 12 or Ubuntu 22.04/24.04: install these packages yourself: ${missing[*]}" ;;
  esac
  ((EUID == 0)) || refuse "installing ${missing[*]%%[:?]*} needs root: run this as root or with sudo"
fi
((refused == 0)) || exit 1

if ((${#missing[@]} > 0)); then
  run "reading the package lists" apt-get update
  wanted=()
  for line in "${missing[@]}"; do
    package=${line%%[:?]*}
    [[ $line == *\? && -z $(apt-cache show "$package" 2>/dev/null) ]] || wanted+=("$package")
  done
  # Ubuntu 22.04 lacks the optional ones: then there is nothing to do.
  ((${#wanted[@]} == 0)) || run "installing ${wanted[*]}" apt-get install --yes --no-install-recommends "${wanted[@]}"
  # Their programs are wanted, not the services that the packages start on this machine.
  for package in "${wanted[@]}"; do
    case $package in docker-registry | postgresql | prometheus | prometheus-alertmanager)
      [[ ! -d /run/systemd/system ]] || run "switching off the service $package" systemctl disable --now "$package" ;;
    esac
  done
fi

# One hash for all that decides what is in .venv.
stamp=.venv/.bootstrap
key=$(cat uv.lock pyproject.toml requirements.yml lab/bootstrap.sh lab/debian-python.sh | sha256sum)
if [[ -x .venv/bin/python && -f $stamp && $(<"$stamp") == "$key" ]] && command -v uv >/dev/null; then exit 0; fi

if ! uv --version >/dev/null 2>&1; then
  run "installing uv" sh -c "python3 -m venv '$private' && '$private/bin/pip' install --quiet uv"
fi
# Pythons of pyenv are not always on PATH.
for folder in "$HOME"/.pyenv/versions/*/bin; do [[ ! -d $folder ]] || PATH=$PATH:$folder; done
python=$(uv python find '>=3.12' 2>/dev/null || true)
# Distributions and uv build Python with what a profile of it tells; what pyenv builds takes a third more processor time.
if [[ -z $python ]] || ! "$python" - <<'ASK'; then
import sys, sysconfig
arguments = (sysconfig.get_config_var("CONFIG_ARGS") or "").replace("'", "").split()
sys.exit(not {"--enable-optimizations", "--prefix=/usr"} & set(arguments))
ASK
  own=$cache/python-3.13
  printf 'bootstrap: fetching Python 3.13: uv'"'"'s, or that of Debian 13\n' >&2
  if UV_HTTP_RETRIES=0 uv python install --quiet 3.13 2>"$log"; then
    python=$(uv python find --managed-python 3.13)
  elif [[ -x $own/usr/bin/python3.13 ]] || lab/debian-python.sh "$own" >>"$log" 2>&1; then
    python=$own/usr/bin/python3.13
  fi
  if [[ -z $python ]]; then
    tail -n 5 "$log" >&2
    printf 'bootstrap: failed: neither can be had, and this machine has no Python >= 3.12: install one, then run the same command again\n' >&2
    exit 1
  fi
fi
# Compiled: importing the Kubernetes client takes 0.4 s instead of 2, in every task that uses it.
run "installing the locked Python packages" uv sync --locked --compile-bytecode --python "$python"
run "looking for the Ansible collections" .venv/bin/ansible-galaxy collection install --requirements-file requirements.yml
printf '%s\n' "$key" >"$stamp"
