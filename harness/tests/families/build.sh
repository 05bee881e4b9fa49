#!/bin/sh
# Builds two root file systems of Debian's packages, as data: one with OpenRC, rpm and dnf, one with systemd and pacman, and packages
# for each.
#
#   build.sh FOLDER     a folder every user may pass through and write to; gets openrc.tar systemd.tar *.rpm *.pkg.tar.gz
set -eu
umask 022
folder=$1
here=$(dirname "$(readlink -f "$0")")
export TMPDIR="$folder" LC_ALL=C.UTF-8

build() {
    mmdebstrap --mode=unshare --variant=minbase --include="$2" --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --customize-hook="$here/package.sh \"\$1\" $3" --customize-hook="sync-out /made $folder" --customize-hook='rm -r "$1/made"' \
        bookworm "$folder/$1.tar"
}
build openrc sysvinit-core,openrc,rpm,dnf rpm
build systemd systemd-sysv,pacman-package-manager pacman
