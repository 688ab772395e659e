#!/bin/sh
# First process of the guest that run_uml.py boots: a pure cgroup v2 host, and then pytest.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
# The guest keeps SSE registers only (run_uml.py): the C library must not choose wider ones.
narrow=-AVX2_Usable,-AVX512VL,-AVX512F,-AVX512BW,-AVX2,-AVX,-XSAVEC,-XSAVE,-ERMS,-FSRM,-RTM
narrow=$narrow,-SSE4_2,-SSE4_1,-SSSE3,-BMI2,-LZCNT,-MOVBE,-POPCNT
export GLIBC_TUNABLES=glibc.cpu.hwcaps=$narrow OPENSSL_ia32cap=0:0

mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
scratch=$(sed -n 's/.*cais_scratch=\([^ ]*\).*/\1/p' /proc/cmdline)
exec 3<"$scratch/command"
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /run
# Not on /tmp: the checkout may lie there.
export TMPDIR=/run/tmp
mkdir "$TMPDIR"
ip link set lo up 2>/dev/null
for module in /usr/lib/uml/modules/*/kernel/fs/overlayfs/overlay.ko; do busybox insmod "$module"; done

read -r checkout <&3
set --
while IFS= read -r word <&3; do set -- "$@" "$word"; done
exec 3<&-
cd "$checkout" || echo "guest-exit-status=4"
"$@" </dev/null
echo "guest-exit-status=$?"
sync
poweroff -f 2>/dev/null || busybox poweroff -f
