#!/bin/sh
# Last changes to the tree of a cloud image, $1; runs as root of the build's own name space.
set -eu
root=$1
rm -f "$root"/etc/ssh/ssh_host_* "$root/etc/machine-id" "$root/etc/hostname" "$root/etc/resolv.conf"
touch "$root/etc/machine-id"
printf 'LABEL=cloudroot / ext4 rw 0 1\n' >"$root/etc/fstab"
printf 'source-directory /etc/network/interfaces.d\nauto lo\niface lo inet loopback\n' >"$root/etc/network/interfaces"
# As Debian's own cloud images have it.
cat >"$root/etc/cloud/cloud.cfg.d/90_debian.cfg" <<EOF
datasource_list: [ NoCloud, None ]
locale: C.UTF-8
# Some of the modules: each one costs an emulated guest its time.
cloud_config_modules: [set-passwords, locale, runcmd]
cloud_final_modules: [scripts-user, final-message]
EOF
# What a virtual machine has not got need not be looked for, for the same reason.
chroot "$root" systemctl --quiet mask e2scrub_reap.service systemd-binfmt.service dev-hugepages.mount dev-mqueue.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount modprobe@configfs.service modprobe@dm_mod.service modprobe@drm.service \
    modprobe@efi_pstore.service modprobe@fuse.service modprobe@loop.service

# An initial file system with what a virtual machine needs, and not with what any machine might: emulated guests unpack it slowly.
printf 'MODULES=list\n' >"$root/etc/initramfs-tools/conf.d/small"
printf 'virtio_pci\nvirtio_blk\next4\n' >>"$root/etc/initramfs-tools/modules"
chroot "$root" update-initramfs -u

mkdir -p "$root/boot/grub" "$root/boot/made"
kernel=$(basename "$root"/boot/vmlinuz-*)
cat >"$root/boot/grub/grub.cfg" <<EOF
set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
linux /boot/$kernel root=LABEL=cloudroot rw console=ttyS0,115200 net.ifnames=0 no_timer_check quiet
initrd /boot/initrd.img-${kernel#vmlinuz-}
boot
EOF
# Whichever disk it is started from: the one with this file system.
printf 'search --no-floppy --label cloudroot --set=root\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n' \
    >"$root/boot/made/early.cfg"
modules='part_gpt ext2 normal linux configfile search search_label serial terminal boot'
chroot "$root" grub-mkimage -O i386-pc -o /boot/made/core.img -c /boot/made/early.cfg -p /boot/grub biosdisk $modules
# As Debian signs them: the shim starts what lies beside it. With Secure Boot GRUB takes no commands but those that are built in.
cp "$root/usr/lib/shim/shimx64.efi.signed" "$root/boot/made/BOOTX64.EFI"
cp "$root/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed" "$root/boot/made/grubx64.efi"
cp "$root/boot/made/early.cfg" "$root/boot/made/grub.cfg"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$root/boot/made/"
