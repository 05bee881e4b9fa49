#!/bin/sh
# Builds the root disk of a system for another kind of CPU, whose programs are emulated meanwhile.
#
#   foreign.sh ARCHITECTURE RULE RELEASE PACKAGES WORK
#
# ARCHITECTURE  Debian's name of it
# RULE          what the kernel is told to run its programs with, in this build's name space; empty: it knows
#
# The rest is build.sh's, which does the work.
set -eu
architecture=$1
export NESTMATRIX_BINFMT="$2"
shift 2

# The initial RAM disk would be made by the kernel's package, and again by that of the tools: it is made once, at the end.
export INITRD=No

mmdebstrap() {
    # What mmdebstrap would look at by itself are the settings of the machine. Host keys that are there are not made: nobody will use
    # them, and RSA keys take half a minute.
    [ "$1" = --unshare-helper ] ||
        set -- --architectures="$architecture" --skip=check/qemu --setup-hook="$work/binfmt.sh" \
            --essential-hook='mkdir -p "$1/etc/ssh"; touch "$1/etc/ssh/ssh_host_rsa_key" "$1/etc/ssh/ssh_host_ecdsa_key"' \
            --customize-hook='chroot "$1" update-initramfs -c -k "$(ls "$1/lib/modules")"' "$@"
    command mmdebstrap "$@"
}
. "$3/build.sh"
