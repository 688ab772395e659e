#!/usr/bin/env bash
# The demonstration: an image out of nothing, a container out of the image, what it may and may not.
# Runs the engine in namespaces and directories of its own, and removes them all in the end.
set -euo pipefail
cd "$(dirname "$0")/.."

# Outside: a directory, and around everything else namespaces whose end nothing survives.
if [ -z "${CAIS_DEMO_STAGE:-}" ]; then
  [ "$(id -u)" = 0 ] || { echo "the demonstration needs root" >&2; exit 1; }
  CAIS_DEMO_STAGE=$(mktemp -d /tmp/cais-demo.XXXXXX)
  export CAIS_DEMO_STAGE
  clean_up() {
    rm -rf --one-file-system "$CAIS_DEMO_STAGE"
    rmdir /sys/fs/cgroup/cais /sys/fs/cgroup/*/cais 2>/dev/null || true
  }
  trap clean_up EXIT
  unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private "$0" "$@"
  exit
fi

stage=$CAIS_DEMO_STAGE
export CAIS_DATA_ROOT=$stage/data CAIS_EXEC_ROOT=$stage/run
unset CAIS_HOST DOCKER_HOST
cais=$PWD/.venv/bin/cais

bold=$'\e[1m' dim=$'\e[2m' cyan=$'\e[36m' plain=$'\e[0m'
[ -t 1 ] || bold='' dim='' cyan='' plain=''

remove_containers() {
  local left
  left=$("$cais" ps -aq 2>/dev/null) || true
  [ -z "$left" ] || "$cais" rm -f $left >/dev/null 2>&1 || true
}
trap remove_containers EXIT

say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
note() { printf '%s%s%s\n' "$dim" "$*" "$plain"; }
# Shows a command as a person would type it, then runs it.
show() {
  local word line=''
  for word; do
    case $word in *[!a-zA-Z0-9_./:=-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
  done
  printf '%s$ cais%s%s\n' "$cyan" "$line" "$plain"
  "$cais" "$@"
}
now_ms() { echo $(($(date +%s%N) / 1000000)); }
size_kb() { du -sk "$CAIS_DATA_ROOT" | cut -f1; }

ip link set lo up

say "1. An image out of nothing: no registry, only this machine's busybox"
show image bootstrap busybox
show images
note "the engine was not running: the first command started it, in $stage"

say "2. A container: 64 MB of memory, half a CPU"
show run -d --name harbour -m 64m --cpus 0.5 --hostname quay busybox sleep 600
pid=$("$cais" inspect -f '{{.State.Pid}}' harbour)

say "3. What it sees from inside"
show exec harbour ps
show exec harbour hostname
show exec harbour ip -4 -o address
show exec harbour sh -c 'mount | head -4; echo "and $(wc -l </proc/mounts) mounts in all, none of them the host'"'"'s"' | cut -c1-96

say "4. What we see from outside"
note "the same process here is pid $pid:"
tr '\0' ' ' <"/proc/$pid/cmdline" && echo
for kind in mnt pid net ipc uts; do
  ours=$(readlink "/proc/self/ns/$kind") theirs=$(readlink "/proc/$pid/ns/$kind")
  [ "$ours" = "$theirs" ] && verdict="SHARED" || verdict="its own"
  printf '  %-4s namespace: ours %s, the container has %s (%s)\n' "$kind" "$ours" "$theirs" "$verdict"
done
note "our hostname is still $(hostname), and our mount table does not show its root:"
printf '  mounts of ours that mention the container: %s\n' "$(grep -c "$("$cais" ps -q)" /proc/self/mounts || true)"
read_limit() { cat "/proc/$pid/root/sys/fs/cgroup/$1" 2>/dev/null || cat "/proc/$pid/root/sys/fs/cgroup/$2" 2>/dev/null; }
printf '  memory limit in the kernel: %s bytes\n' "$(read_limit memory.max memory/memory.limit_in_bytes)"
printf '  processor time in the kernel: %s us of every 100000\n' "$(read_limit cpu.max cpu/cpu.cfs_quota_us | cut -d' ' -f1)"

say "5. A hungry process asks for 200 MB"
show run --name hungry -m 64m busybox dd if=/dev/zero of=/dev/null bs=200M count=1 || echo "exit code $?"
show inspect -f 'killed for memory: {{.State.OOMKilled}}, exit code {{.State.ExitCode}}' hungry

say "6. Ten containers, one copy of the image on disk"
before=$(size_kb)
for number in $(seq 10); do "$cais" create --name "twin$number" busybox true >/dev/null; done
printf '  the image: %s; ten more containers: %s kB more on disk\n' \
  "$("$cais" images --format '{{.Size}}' busybox)" "$(($(size_kb) - before))"

say "7. How long a container takes"
repeat() { # milliseconds that a command takes, of ten
  local began
  began=$(now_ms)
  for _ in 1 2 3 4 5 6 7 8 9 10; do "$@" >/dev/null; done
  echo $((($(now_ms) - began) / 10))
}
whole=$(repeat "$cais" run --rm --network none busybox true)
client=$(repeat "$cais" ps)
printf '  `cais run --rm busybox true`: %s ms, of which %s ms are the start of the command line\n' "$whole" "$client"
printf '  left for create, start, run, exit and remove: %s ms\n' "$((whole - client))"

say "8. Gone without a trace"
show rm -f harbour
"$cais" rm -f hungry $(seq -f 'twin%g' 10) >/dev/null
show ps -a
note "and with the end of this script: the engine, its namespaces and $stage"
