#!/bin/sh
# Run by the guest's cais-tests.service, with the sources at /run/sources: make the host's paths,
# run the command, report its exit status on the second serial line, switch off.
export PATH=/run/tools/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8

status=4
finish() {
  echo "exit-status=$status" >/dev/ttyS1
  sync
  systemctl poweroff --force --force
}
trap finish EXIT

set -e
exec 3</run/sources/command
read -r checkout <&3
mkdir -p "$checkout" /run/tools
mount --bind /run/sources/checkout "$checkout"
mount -o ro /dev/vdb /run/tools
while IFS= read -r place; do
  mkdir -p "$place"
  mount --bind "/run/tools$place" "$place"
done </run/tools/places
modprobe overlay
ip link set lo up

set --
while IFS= read -r word <&3; do set -- "$@" "$word"; done
exec 3<&-
cd "$checkout"
set +e
"$@" </dev/null
status=$?
