# Makes a small package for Alpine in the folder $1: unsigned, as somebody has it who has just built it.
set -eu
cd "$1"
mkdir -p data/usr/bin
printf '#!/bin/sh\necho hello from an apk\n' >data/usr/bin/nm-hello
chmod 755 data/usr/bin/nm-hello
sum=$(sha1sum data/usr/bin/nm-hello | cut -d ' ' -f 1)
tar -C data --format=pax --pax-option="APK-TOOLS.checksum.SHA1:=$sum,delete=atime,delete=ctime" --owner=0 --group=0 --numeric-owner \
    --sort=name -cf - usr | gzip -9n >data.tar.gz
printf '%s\n' 'pkgname = nm-hello' 'pkgver = 1.0-r0' 'pkgdesc = says hello' 'url = none' 'size = 64' 'arch = noarch' \
    'license = MIT' 'origin = nm-hello' "datahash = $(sha256sum data.tar.gz | cut -d ' ' -f 1)" >.PKGINFO
# The two empty blocks at the end of an archive would end the whole package.
tar -b 1 --format=ustar --owner=0 --group=0 --numeric-owner -cf - .PKGINFO | head -c -1024 | gzip -9n >control.tar.gz
cat control.tar.gz data.tar.gz >nm-hello-1.0-r0.apk
