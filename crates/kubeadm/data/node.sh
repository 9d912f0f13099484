# Moves into the node's root directory and becomes its PID 1, which is systemd.
# Arguments: root directory, its host name, its address, the layers of /usr (colons between), the node's own part of /usr and its work
# directory, a directory to show at /mnt/target, and for each hierarchy of control groups its folder's name and its mount options.
set -e
root=$1 name=$2 address=$3 layers=$4 usr=$5 work=$6 target=$7
shift 7
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind -o ro "$target" "$root/mnt/target"
mount -o remount,bind,ro "$root/mnt/target"
cd "$root"
mount -t overlay -o "lowerdir=$layers,upperdir=$usr,workdir=$work" usr usr
mount -t tmpfs -o mode=755,nosuid dev dev
for d in null zero full random urandom tty kmsg; do
    : >dev/$d
    mount --bind /dev/$d dev/$d
done
mkdir dev/pts dev/shm dev/mqueue
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mkdir run/lock

# The kernel's settings are the machine's, so they are read-only, except for those of the network, which are the node's.
# kubelet writes four more, and gets files of the node in their places.
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mkdir run/sysctl
setting() {
    echo "$2" >"run/sysctl/${1##*/}"
    mount --bind "run/sysctl/${1##*/}" "proc/sys/$1"
}
setting vm/overcommit_memory 1
setting vm/panic_on_oom 0
setting kernel/panic 10
setting kernel/panic_on_oops 1
mount -o remount,bind,ro proc/sys

mount -t sysfs -o ro sysfs sys
hierarchy=
if [ "$1" = unified ]; then
    mount -t cgroup2 cgroup2 sys/fs/cgroup
else
    # systemd would mount version 2 as well, where the node has no group of its own.
    hierarchy="systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=yes"
    mount -t tmpfs -o mode=755 cgroup sys/fs/cgroup
    while [ $# -gt 0 ]; do
        mkdir "sys/fs/cgroup/$1"
        mount -t cgroup -o "$2" cgroup "sys/fs/cgroup/$1"
        shift 2
    done
fi

# kubelet wants a default route; this one leads to the other end of a cable that nobody holds.
hostname "$name"
ip link set lo up
ip link add eth0 type veth peer name uplink
ip link set uplink up
ip address add "$address/24" dev eth0
ip link set eth0 up
ip route add default via "${address%.*}.1" dev eth0
echo 1 >/proc/sys/net/ipv4/ip_forward

pivot_root . .old
cd /
umount -l /.old
mount --make-rshared /
exec env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    /usr/lib/systemd/systemd --system $hierarchy
