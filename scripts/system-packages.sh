#!/usr/bin/env bash
# Install the system packages that `make demo`, `make test` or `make test-vm` need, and no service.
#
# Usage: scripts/system-packages.sh demo|test|vm
#
# Debian 12/13 and Ubuntu 24.04 know every name below (of vm_packages: Debian). Elsewhere the script
# only says what is missing. The docker CLI is taken alone, without the daemon its package may bring.
set -euo pipefail
cd "$(dirname "$0")/.."

runtime_packages=(busybox-static libseccomp2 libnftables1 iproute2 util-linux)
test_packages=(zstd xz-utils strace e2fsprogs xfsprogs btrfs-progs fuse-overlayfs nftables openssl procps runc crun skopeo umoci podman uidmap docker-registry mmdebstrap debian-archive-keyring systemd)
vm_packages=(user-mode-linux qemu-system-x86 mmdebstrap e2fsprogs)

declare -a wanted
case "${1:?demo, test or vm}" in
  demo) wanted=("${runtime_packages[@]}") ;;
  test) wanted=("${runtime_packages[@]}" "${test_packages[@]}") ;;
  vm) wanted=("${runtime_packages[@]}" "${vm_packages[@]}") ;;
  *) echo "$0: unknown set $1" >&2; exit 2 ;;
esac

have_docker_cli() { command -v docker >/dev/null && docker --version >/dev/null 2>&1; }

missing_packages() {
  local package
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed \
      || echo "$package"
  done
}

# Prevents maintainer scripts from starting what they install (Debian policy 9.3.3.1).
forbid_services() {
  local policy=/usr/sbin/policy-rc.d
  [ -e "$policy" ] && return
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
}

apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null; }

# Ubuntu has no user-mode-linux: its tests skip themselves there.
leave_out_unknown() {
  local package known=()
  for package in "${missing[@]}"; do
    if [ -n "$(apt-cache show "$package" 2>/dev/null)" ]; then # 0 for a name only mentioned
      known+=("$package")
    else
      echo "not packaged for this distribution: $package" >&2
    fi
  done
  missing=("${known[@]}")
}

# The CLI alone: `docker-cli` where that is a package of its own, else out of `docker.io`.
install_docker_cli() {
  if apt-cache show docker-cli >/dev/null 2>&1; then
    apt install --no-install-recommends docker-cli >/dev/null
    return
  fi
  local work
  work=$(mktemp -d)
  (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download docker.io && dpkg-deb -x docker.io_*.deb unpacked)
  install -D "$work/unpacked/usr/bin/docker" .cache/bin/docker
  rm -rf "$work"
}

if ! command -v apt-get >/dev/null; then
  echo "not a Debian or Ubuntu: please see to these packages yourself: ${wanted[*]}" >&2
  exit 0
fi

mapfile -t missing < <(missing_packages)
need_docker=false
[ "$1" = test ] && ! have_docker_cli && need_docker=true
[ ${#missing[@]} -eq 0 ] && [ $need_docker = false ] && exit 0
if [ "$(id -u)" != 0 ]; then
  echo "$0: needs root to install: ${missing[*]}" >&2
  exit 1
fi
echo "installing: ${missing[*]}$([ $need_docker = true ] && echo ' the docker CLI')"
forbid_services
apt update
[ "$1" != vm ] || leave_out_unknown
[ ${#missing[@]} -eq 0 ] || apt install --no-install-recommends "${missing[@]}" >/dev/null
[ $need_docker = false ] || install_docker_cli
