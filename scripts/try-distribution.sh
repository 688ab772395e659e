#!/usr/bin/env bash
# What a newcomer has: a fresh minimal Debian or Ubuntu, a clone of this repository, the two commands.
#
# Usage: scripts/try-distribution.sh bookworm|trixie|noble|<any Debian suite> [make target ...]
#
# Builds the distribution's smallest system with mmdebstrap, clones HEAD into it, enters it with
# pivot_root in mount and process namespaces of its own, and runs `make test` and `make demo` there
# (or the targets named), stopping at the first failure. The network is this machine's, for packages.
# Needs root, git and mmdebstrap; for Ubuntu also its archive keyring. Leaves nothing behind.
#
# CAIS_TRY_DIR: where to work, a file system that overlayfs can stack on, 4 GB (default: /var/tmp).
# CAIS_TRY_KEYRING: Ubuntu's keyring, where it is not in /usr/share/keyrings.
set -euo pipefail

enter() { # root, then what to run: the second half, in the new namespaces
  local root=$1
  shift
  mount --bind "$root" "$root"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  cd "$root"
  pivot_root . mnt
  cd /
  umount -l /mnt
  exec env -i "${passed_on[@]}" HOME=/root LANG=C.UTF-8 PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

own_authorities=/usr/local/share/ca-certificates # whom this machine's administrator trusts besides
passed_on=(PIP_CERT=/etc/ssl/certs/ca-certificates.crt)
for name in http_proxy https_proxy no_proxy PIP_INDEX_URL TERM; do
  [ -z "${!name:-}" ] || passed_on+=("$name=${!name}")
done
if [ "${1:-}" = --enter ]; then
  shift
  enter "$@"
fi

suite=${1:?a suite: bookworm, trixie, noble}
shift
targets=("${@:-test}")
[ $# -gt 0 ] || targets+=(demo)
[ "$(id -u)" = 0 ] || { echo "$0: needs root" >&2; exit 1; }
checkout=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d "${CAIS_TRY_DIR:-/var/tmp}/cais-try.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root

sources=() # for Debian mmdebstrap knows them
case $suite in
  jammy | noble | resolute)
    keyring=${CAIS_TRY_KEYRING:-/usr/share/keyrings/ubuntu-archive-keyring.gpg}
    [ -e "$keyring" ] || { echo "$0: no $keyring: see CAIS_TRY_KEYRING" >&2; exit 1; }
    for pocket in "$suite" "$suite-updates"; do
      sources+=("deb [signed-by=$keyring] http://archive.ubuntu.com/ubuntu $pocket main universe")
    done
    ;;
esac

say() { printf '\n=== %s: %s (%s)\n' "$suite" "$*" "$(date +%T)"; }

say "the smallest system, and what a clone needs"
mmdebstrap --quiet --variant=minbase --include=apt,ca-certificates,git,make,python3 \
  "$suite" "$root" "${sources[@]}"
sed -i 's/\[signed-by=[^]]*\] //' "$root/etc/apt/sources.list" # a path of this machine
rm -f "$root/etc/resolv.conf" # on some distributions a link to what no one serves here
cp /etc/resolv.conf /etc/hosts "$root/etc/"
find "$own_authorities" -name '*.crt' -exec cp -t "$root$own_authorities" {} +
chroot "$root" update-ca-certificates >/dev/null 2>&1
git clone --quiet --no-hardlinks "$checkout" "$root/root/cais"
say "$(. "$root/etc/os-release" && echo "$PRETTY_NAME"), commit $(git -C "$checkout" rev-parse --short HEAD)"

for target in "${targets[@]}"; do
  say "make $target"
  began=$SECONDS
  unshare --mount --pid --fork --kill-child --propagation private \
    "$0" --enter "$root" make -C /root/cais "$target" </dev/null
  say "make $target passed in $((SECONDS - began)) s"
done
