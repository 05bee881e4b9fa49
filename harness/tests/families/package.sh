#!/bin/sh
# Makes the package `nm-hello` 1.0 of family $2 with the tools in the tree $1, into its folder /made.
set -eu
mkdir "$1/made" "$1/tmp/work"
case $2 in
rpm)
    cat >"$1/tmp/work/nm-hello.spec" <<'EOF'
Name: nm-hello
Version: 1.0
Release: 1
Summary: a package
License: none
BuildArch: noarch
# The database of this system's rpm is empty: it would miss /bin/sh.
AutoReqProv: no
%description
A package.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\necho hello from an rpm\n' >%{buildroot}/usr/bin/nm-hello
chmod 755 %{buildroot}/usr/bin/nm-hello
%files
/usr/bin/nm-hello
EOF
    chroot "$1" rpmbuild -bb --quiet --define '_topdir /tmp/work' --define '_rpmdir /made' /tmp/work/nm-hello.spec
    mv "$1"/made/noarch/*.rpm "$1/made/"
    rmdir "$1/made/noarch"
    ;;
pacman)
    mkdir -p "$1/tmp/work/usr/bin"
    printf '#!/bin/sh\necho hello from pacman\n' >"$1/tmp/work/usr/bin/nm-hello"
    chmod 755 "$1/tmp/work/usr/bin/nm-hello"
    printf '%s = %s\n' pkgname nm-hello pkgbase nm-hello pkgver 1.0-1 pkgdesc 'a package' arch any size 10 builddate 1 \
        >"$1/tmp/work/.PKGINFO"
    tar -C "$1/tmp/work" -czf "$1/made/nm-hello-1.0-1-any.pkg.tar.gz" .PKGINFO usr
    ;;
esac
rm -r "$1/tmp/work"
