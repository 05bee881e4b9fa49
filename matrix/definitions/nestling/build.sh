#!/bin/sh
# Builds both versions of the sample package from the source beside this file: build.sh FOLDER
# Called by `cargo xtask run-matrix` and `cargo xtask test`. Equal compilers make equal bytes.
set -eu

out=${1:?usage: build.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
# Any fixed moment: the time of the build must not end up in the packages.
export SOURCE_DATE_EPOCH=1767225600 LC_ALL=C
umask 022
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "$out/.build.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

for version in 1.0 2.0; do
	root=$work/$version
	mkdir -p "$root/DEBIAN" "$root/usr/bin" "$root/etc" "$root/lib/systemd/system"

	# Static: a program linked against the C library of a new Debian does not start on an older one.
	(cd "$here" && "${CC:-cc}" -O2 -Wall -Wextra -static -s -Wl,--build-id=none -DMAJOR="${version%.*}" \
		-DVERSION="\"$version\"" -o "$root/usr/bin/nestling" nestling.c) || {
		echo "build.sh: no static program could be linked: install the C library's static part (libc6-dev, glibc-static)" >&2
		exit 1
	}
	cp "$here/nestling.conf" "$root/etc/"
	# The configuration file of 2.0 differs, so that an upgrade has to choose between it and the administrator's.
	[ "$version" = 1.0 ] || printf '# Number the answers.\nnumbered = yes\n' >>"$root/etc/nestling.conf"
	# Not /usr/lib: on Debian 11 deb-systemd-helper looks for units here only.
	cp "$here/nestling.service" "$root/lib/systemd/system/"
	cp "$here/debian/conffiles" "$root/DEBIAN/"
	for script in postinst prerm postrm; do
		cp "$here/debian/$script" "$root/DEBIAN/"
		chmod 755 "$root/DEBIAN/$script"
	done
	architecture=$(dpkg --print-architecture)
	sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" "$here/debian/control" >"$root/DEBIAN/control"

	# xz: the dpkg of Debian 11 cannot read what newer ones may choose by themselves.
	deb=nestling_${version}_$architecture.deb
	dpkg-deb -Zxz --root-owner-group --build "$root" "$work/$deb" >/dev/null
	mv "$work/$deb" "$out/$deb"
done
