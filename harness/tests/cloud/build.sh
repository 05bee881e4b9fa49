#!/bin/sh
# Builds a disk as publishers of cloud images make them: a partition table, GRUB for BIOS and, signed, for UEFI, cloud-init, an SSH server; no
# key, no password, no host key. Of Debian's own packages, for the tests of such images.
#
#   build.sh SOURCES WORK DISK
#
# SOURCES   apt sources to take the packages from; empty: mmdebstrap chooses
# WORK      a folder every user may pass through, on a disk with room for 3 GB; emptied by the caller
# DISK      the disk to make (raw)
set -eu
umask 022
sources=$1 work=$2 disk=$3
here=$(dirname "$(readlink -f "$0")")
export TMPDIR="$work" LC_ALL=C.UTF-8

packages=linux-image-cloud-amd64,initramfs-tools,systemd-sysv,udev,dbus,openssh-server,sudo,ifupdown,isc-dhcp-client,cloud-init
packages=$packages,cloud-guest-utils,e2fsprogs,grub-common,grub-pc-bin,shim-signed,grub-efi-amd64-signed,mokutil
set --
[ -z "$sources" ] || set -- "$sources"
mmdebstrap --mode=unshare --format=directory --variant=minbase --include="$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --customize-hook="$here/customize.sh" bookworm "$work/root" "$@"

# Sectors of 512 bytes: GRUB's own partition (for BIOS), the EFI system partition, the root file system.
grub=2048 efi=4096 root=36864 end=3141632
rm -f "$disk"
truncate -s $(((end + 2048) * 512)) "$disk"
sfdisk --quiet "$disk" <<EOF
label: gpt
start=$grub, size=$((efi - grub)), type=21686148-6449-6E6F-744E-656564454649
start=$efi, size=$((root - efi)), type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
start=$root, size=$((end - root)), type=0FC63DAF-8483-4772-8E79-3D69D8477DE4
EOF

boot=$work/boot
mkdir "$boot"
for file in boot.img core.img BOOTX64.EFI grubx64.efi grub.cfg; do
    mmdebstrap --unshare-helper cat "$work/root/boot/made/$file" >"$boot/$file"
done
mmdebstrap --unshare-helper rm -r "$work/root/boot/made"

# What grub-bios-setup does where it may open block devices: the first sector is told where GRUB's core lies, and the core's first
# sector where the rest of it does (little-endian, as GRUB's boot.S and diskboot.S have it).
little() { printf '%b' "$(printf '\\%03o\\%03o\\%03o\\%03o' $(($1 & 255)) $(($1 >> 8 & 255)) $(($1 >> 16 & 255)) 0)"; }
patch() { little "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none; }
patch "$boot/boot.img" 92 $grub
patch "$boot/core.img" 500 $((grub + 1))
dd if="$boot/boot.img" of="$disk" bs=1 count=440 conv=notrunc status=none
dd if="$boot/core.img" of="$disk" bs=512 seek=$grub conv=notrunc status=none

fat=$disk@@$((efi * 512))
mformat -i "$fat" -T $((root - efi)) -v EFI ::
mmd -i "$fat" ::/EFI ::/EFI/BOOT ::/EFI/debian
mcopy -i "$fat" "$boot/BOOTX64.EFI" "$boot/grubx64.efi" ::/EFI/BOOT/
# Where Debian's signed GRUB looks for it.
mcopy -i "$fat" "$boot/grub.cfg" ::/EFI/debian/

# It is open for writing to whoever this runs as, and the name space has no right to walk to it.
exec 9<>"$disk"
mmdebstrap --unshare-helper mke2fs -q -F -t ext4 -L cloudroot -m 0 \
    -E offset=$((root * 512)),root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1 \
    -d "$work/root" /proc/self/fd/9 $(((end - root) / 2))k
mmdebstrap --unshare-helper rm -rf "$work/root"
