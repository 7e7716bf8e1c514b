#!/bin/sh
# First process of an emulated board: mounts, modules, network, disks, then /job, then off.
export PATH=/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
for module in /modules/*.ko; do
    insmod "$module" || echo "guest: $module was not loaded"
done
ip link set lo up
ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0
ip route add default via 10.0.2.2
mount -t cgroup2 none /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
[ -e /dev/vda ] && mount -t ext4 -o ro,noload /dev/vda /pack
[ -e /dev/vdb ] && mount -t ext4 /dev/vdb /state
echo "guest: up after $(cut -d' ' -f1 /proc/uptime) s, $(grep MemTotal /proc/meminfo | tr -s ' ')"
sh /job
echo "guest: job ended with $?"
sync
poweroff -f
