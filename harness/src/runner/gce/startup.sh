#!/bin/bash
# Run by the L1 as root when it is up: the start-up script of its metadata. What it says is read on the serial port and in the guest attributes
# (namespace `nestmatrix`).
# It is to run guests (`run`), or to become an image of such machines (`bake`).
purpose=run
# The cache disk was made for this: it is formatted if there is nothing on it.
format=no
user=nestmatrix

# put KEY VALUE: a guest attribute. Without a program that speaks HTTP: not every image has one.
put() {
    exec 9<>/dev/tcp/169.254.169.254/80 || return
    printf 'PUT /computeMetadata/v1/instance/guest-attributes/nestmatrix/%s HTTP/1.0\r\nHost: metadata.google.internal\r\nMetadata-Flavor: Google\r\nContent-Length: %s\r\n\r\n%s' "$1" "${#2}" "$2" >&9
    timeout 10 cat <&9 >/dev/null
    exec 9>&-
} 2>/dev/null
say() {
    printf 'nestmatrix-%s: %s\n' "$1" "$2" >/dev/console 2>/dev/null || printf 'nestmatrix-%s: %s\n' "$1" "$2"
    [ "$1" != state ] || put state "$2"
}
failed() {
    say state "failed: $1"
    exit 1
}
# apt ARGUMENT...: mirrors have bad moments. Its last words are in $words.
apt() {
    local try
    for try in 1 2 3; do
        words=$(apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 -qq "$@" 2>&1) && return
        sleep 10
    done
    words=${words##*$'\n'}
    return 1
}
# within SECONDS COMMAND...: waits until it succeeds.
within() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 1
    done
}

qemu=qemu-system-$(uname -m)
if ! command -v "$qemu" >/dev/null || ! command -v qemu-img >/dev/null; then
    command -v apt-get >/dev/null || failed "this image has no QEMU, and no apt-get to install it: name an image family that has it"
    say state "installing QEMU"
    export DEBIAN_FRONTEND=noninteractive
    # Debian 12 has a QEMU that is too old; its backports have another.
    . /etc/os-release
    release=
    [ "$VERSION_CODENAME" != bookworm ] || release="-t bookworm-backports"
    apt update || failed "apt-get update: $words"
    apt install -y --no-install-recommends $release qemu-system-x86 qemu-utils ovmf swtpm ca-certificates ||
        failed "apt-get install: $words"
fi

if [ "$purpose" = bake ]; then
    # Each machine of the image makes keys and an identity of its own.
    rm -f /etc/ssh/ssh_host_*
    : >/etc/machine-id
    apt-get clean
    sync
    say state ready
    exit 0
fi

# The module that fits the CPU; that guests run with it is proved later. Nobody but us is on this machine. The rule comes first, and what udev
# is about to do is waited for: else it takes the rights back.
echo 'KERNEL=="kvm", MODE="0666"' >/etc/udev/rules.d/99-nestmatrix.rules
udevadm control --reload 2>/dev/null
modprobe -q kvm_intel || modprobe -q kvm_amd || :
udevadm settle --timeout=60 2>/dev/null
[ ! -e /dev/kvm ] || chmod 0666 /dev/kvm
[ ! -w /sys/module/kvm/parameters/halt_poll_ns ] || echo 0 >/sys/module/kvm/parameters/halt_poll_ns

within 120 getent passwd "$user" >/dev/null || failed "the guest agent did not create the user of the metadata's ssh-keys"
home=$(getent passwd "$user" | cut -d: -f6)
cache=/dev/disk/by-id/google-nestmatrix-cache
if [ -e "$cache" ]; then
    say state "mounting the cache disk"
    # Whatever is on a disk is somebody's. And one that was made for this is still empty where the machine that made it ended early.
    blkid -p "$cache" >/dev/null 2>&1
    if [ $? = 2 ] && [ "$format" = yes ]; then
        mkfs.ext4 -q -m 0 -L nestmatrix-cache -E lazy_itable_init=1,nodiscard "$cache" || failed "mkfs.ext4 on the cache disk"
    fi
    [ "$(blkid -o value -s LABEL "$cache")" = nestmatrix-cache ] || failed "the cache disk was not made by nestmatrix: name another one"
    mkdir -p "$home/.cache"
    words=$(mount -o noatime,discard "$cache" "$home/.cache" 2>&1) || failed "mount the cache disk: $words"
    chown "$user:" "$home/.cache"
fi

within 60 ls /etc/ssh/ssh_host_*_key.pub >/dev/null 2>&1 || failed "the machine has no SSH host keys"
for key in /etc/ssh/ssh_host_*_key.pub; do
    say host-key "$(cut -d' ' -f1-2 "$key")"
done
say state ready
