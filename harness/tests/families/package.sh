#!/bin/sh
# Makes packages of family $2 with the tools in the tree $1, into its folder /made: `nm-hello` 1.0, of which the tree already has the same
# version with other content, and `nm-broken`, whose script fails without its package manager failing.
set -eu
mkdir "$1/made" "$1/tmp/work"
rpm_of() {
    cat >"$1/tmp/work/$2.spec" <<END
Name: $2
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
printf '#!/bin/sh\necho $3\n' >%{buildroot}/usr/bin/$2
chmod 755 %{buildroot}/usr/bin/$2
%files
/usr/bin/$2
$4
END
    chroot "$1" rpmbuild -bb --quiet --define '_topdir /tmp/work' --define '_rpmdir /made' "/tmp/work/$2.spec"
    mv "$1"/made/noarch/*.rpm "$1/made/"
    rmdir "$1/made/noarch"
}
pacman_of() {
    rm -rf "$1/tmp/work/$2"
    mkdir -p "$1/tmp/work/$2/usr/bin"
    printf '#!/bin/sh\necho %s\n' "$3" >"$1/tmp/work/$2/usr/bin/$2"
    chmod 755 "$1/tmp/work/$2/usr/bin/$2"
    printf '%s = %s\n' pkgname "$2" pkgbase "$2" pkgver 1.0-1 pkgdesc 'a package' arch any size 10 builddate 1 \
        >"$1/tmp/work/$2/.PKGINFO"
    printf '%s\n' "$4" >"$1/tmp/work/$2/.INSTALL"
    tar -C "$1/tmp/work/$2" -czf "$1/made/$2-1.0-1-any.pkg.tar.gz" .PKGINFO .INSTALL usr
}
case $2 in
rpm)
    rpm_of "$1" nm-hello 'other content' ''
    # Where this system's rpm has its database depends on it.
    chroot "$1" env HOME=/root rpm --upgrade /made/nm-hello-1.0-1.noarch.rpm
    rpm_of "$1" nm-hello 'hello from an rpm' ''
    rpm_of "$1" nm-broken 'broken' "%post -p <lua>
error('cannot find the thing')"
    ;;
pacman)
    pacman_of "$1" nm-hello 'other content' ''
    # A tree without a list of mounts has no free space that could be checked.
    sed '/^CheckSpace/d' "$1/etc/pacman.conf" >"$1/tmp/work/pacman.conf"
    chroot "$1" pacman --config /tmp/work/pacman.conf --upgrade --noconfirm /made/nm-hello-1.0-1-any.pkg.tar.gz
    pacman_of "$1" nm-hello 'hello from pacman' ''
    pacman_of "$1" nm-broken 'broken' 'post_install() { kill -9 $$; }'
    ;;
esac
rm -r "$1/tmp/work"
