#!/bin/sh
# Last changes to the tree of an image, $1. Runs as root of the build's own name space, with all packages installed.
set -eu
root=$1

# The guest is given its only host keys at power-on.
rm -f "$root"/etc/ssh/ssh_host_*

# Whoever waits for a guest to come up opens connections that say nothing; new servers punish their address for it.
sshd_config=$root/etc/ssh/sshd_config.d/nestmatrix.conf
cp "$sshd_config" "$sshd_config.tried"
echo 'PerSourcePenalties no' >>"$sshd_config.tried"
for kind in ecdsa ed25519; do
    chroot "$root" ssh-keygen -q -t $kind -N '' -f /etc/ssh/ssh_host_${kind}_key
done
mkdir -p "$root/run/sshd"
if chroot "$root" /usr/sbin/sshd -t -f /etc/ssh/sshd_config.d/nestmatrix.conf.tried 2>/dev/null; then
    mv "$sshd_config.tried" "$sshd_config"
else
    rm "$sshd_config.tried"
    chroot "$root" /usr/sbin/sshd -t
fi
rm "$root"/etc/ssh/ssh_host_*

chroot "$root" systemctl --quiet enable nestmatrix-seed.service
# apt-daily takes apt's lock behind the back of whoever installs a package, and has nothing to fetch. The others look after
# what a guest does not have (terminals, snapshots of logical volumes, partitions to grow, crash dumps in firmware), and
# most of them load modules or start a shell to find that out.
chroot "$root" systemctl --quiet mask apt-daily.timer apt-daily-upgrade.timer getty-static.service getty@tty1.service \
    serial-getty@ttyS0.service e2scrub_reap.service systemd-repart.service systemd-pstore.service

# What this machine is called, whom it asks for names and how it reaches its mirror is none of the guest's business.
rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap"
# Guests write to disks that are theirs.
rm -f "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
echo guest >"$root/etc/hostname"
rm -f "$root/etc/resolv.conf"
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"

# Nothing was updated since the packages were configured: no users and caches to make at the first boot.
touch "$root/etc/.updated" "$root/var/.updated"

chroot "$root" dpkg-query --show --showformat='${Package}\t${Version}\n' >"$root/usr/lib/nestmatrix/packages.tsv"
