#!/bin/sh
# Builds systems of Debian's packages, with dnf, with zypper and with pacman, and repositories for each and for apk.
#
#   repositories.sh FOLDER ALPINE     a folder every user may pass through and write to, and Alpine's tarball; gets dnf.tar zypper.tar
#                                     pacman.tar apk.tar, and rpm/ pacman/ apk/ as repository.sh has them
set -eu
umask 022
folder=$1
here=$(dirname "$(readlink -f "$0")")
export TMPDIR="$folder" LC_ALL=C.UTF-8

# One system with everything is built sooner than three. Debian's rpm has a database of root's, and zypper looks for the system's.
mmdebstrap --mode=unshare --variant=minbase --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --include=sysvinit-core,openrc,gnupg,rpm,dnf,zypper,createrepo-c,pacman-package-manager,makepkg,libarchive-tools \
    --customize-hook='mkdir -p "$1/etc/rpm" && echo "%_dbpath /var/lib/rpm" >"$1/etc/rpm/macros" && mkdir "$1/made"' \
    --customize-hook="$here/repository.sh rpm \"\$1/made/rpm\" \"\$1\"" \
    --customize-hook="$here/repository.sh pacman \"\$1/made/pacman\" \"\$1\"" \
    --customize-hook="sync-out /made $folder" --customize-hook='rm -r "$1/made"' \
    bookworm "$folder/dnf.tar"
cp "$folder/dnf.tar" "$folder/zypper.tar"
tar --delete --file "$folder/zypper.tar" ./usr/bin/dnf
cp "$folder/dnf.tar" "$folder/pacman.tar"

# Alpine's own repositories are not for a test.
gzip -dc "$2" >"$folder/apk.tar"
tar --delete --file "$folder/apk.tar" ./etc/apk/repositories
mkdir "$folder/alpine"
tar -C "$folder/alpine" -xf "$2" ./lib ./sbin ./usr/lib
"$here/repository.sh" apk "$folder/apk" "$folder/alpine"
rm -r "$folder/alpine"
