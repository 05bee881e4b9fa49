#!/bin/sh
# Makes repositories that guests use, with the tools of the tree $3, for what installs packages of family $1: rpm, pacman or apk.
#
#   repository.sh FAMILY FOLDER TREE     FOLDER is new, and for rpm and pacman in the tree; it gets
#
#   artifacts/         nm-needy 1.0, which depends on nm-lib, and nm-hello 1.0
#   lost/              nm-lost 1.0, which depends on what no repository has
#   clash/             nm-clash 1.0, which depends on nm-lib and conflicts with it
#   good/              a signed repository: nm-lib, and of other content nm-hello 1.0 and nm-needy 1.0 and 2.0
#   forged/            the same, signed by somebody else
#   forged-package/    the same, but only nm-lib is signed by somebody else (not for apk, which signs lists alone)
#   key                who signs; of apk nm.rsa.pub, for apk finds a key by its name
set -eu
umask 022
family=$1 tree=$(readlink -f "$3")
mkdir "$2"
cd "$2"
inside=${PWD#"$tree"}
work=$PWD/work
mkdir -p work
mkdir -m 700 work/gnupg

# Runs a program of the tree there.
run() { chroot "$tree" env HOME=/root GNUPGHOME="$inside/work/gnupg" LC_ALL=C.UTF-8 "$@"; }

# Writes the program of the package $1, which says $2, below $work/root.
program() {
    rm -rf "$work/root"
    mkdir -p "$work/root/usr/bin"
    printf '#!/bin/sh\necho "%s"\n' "$2" >"$work/root/usr/bin/$1"
    chmod 755 "$work/root/usr/bin/$1"
}

# `package FOLDER NAME VERSION SAYS NEEDS CONFLICTS` makes a package; `publish FOLDER KEY PACKAGES-KEY` makes a signed repository of the
# packages in a folder, where nm-lib alone is signed with the third.
case $family in
rpm)
    package() {
        cat >"$work/spec" <<END
Name: $2
Version: $3
Release: 1
Summary: a package
License: none
BuildArch: noarch
# The database of this system's rpm is empty: it would miss /bin/sh.
AutoReqProv: no
${5:+Requires: $5}
${6:+Conflicts: $6}
%description
A package.
%install
mkdir -p %{buildroot}/usr/bin
printf '#!/bin/sh\necho "%%s"\n' '$4' >%{buildroot}/usr/bin/$2
chmod 755 %{buildroot}/usr/bin/$2
%files
/usr/bin/$2
END
        run rpmbuild -bb --quiet --define '__os_install_post %{nil}' --define "_topdir $inside/work/top" --define "_rpmdir $inside/work" "$inside/work/spec"
        mv work/noarch/*.rpm "$1/"
    }
    sign() { run rpmsign --addsign --define '__gpg /usr/bin/gpg' --define "_gpg_name $1" "$inside/$2" >/dev/null; }
    publish() {
        for file in "$1"/*.rpm; do
            case $file in */nm-lib-*) sign "$3" "$file" ;; *) sign "$2" "$file" ;; esac
        done
        run createrepo_c --quiet "$inside/$1"
        run gpg --batch --yes --local-user "$2" --armor --detach-sign "$inside/$1/repodata/repomd.xml"
        # zypper asks for it.
        cp key "$1/repodata/repomd.xml.key"
    }
    ;;
pacman)
    package() {
        program "$2" "$4"
        {
            printf '%s = %s\n' pkgname "$2" pkgbase "$2" pkgver "$3-1" pkgdesc 'a package' arch any size 10 builddate 1
            if [ -n "$5" ]; then echo "depend = $5"; fi
            if [ -n "$6" ]; then echo "conflict = $6"; fi
        } >"$work/root/.PKGINFO"
        tar -C "$work/root" -czf "$1/$2-$3-1-any.pkg.tar.gz" .PKGINFO usr
    }
    # A list of pacman has a package in one version: `nm-newer` is another.
    publish() {
        for file in "$1"/*.pkg.tar.gz; do
            key=$2
            case $file in */nm-lib-*) key=$3 ;; esac
            run gpg --batch --yes --local-user "$key" --detach-sign "$inside/$file"
            list=nm
            case $file in */nm-needy-2*) list=nm-newer ;; esac
            run env GPGKEY="$2" repo-add --quiet --sign --key "$2" "$inside/$1/$list.db.tar.gz" "$inside/$file" >/dev/null
        done
        rm "$1"/*.old*
    }
    ;;
apk)
    # A program of that system, by that system's own loader: nobody need be root.
    apk() { "$tree/lib/ld-musl-x86_64.so.1" --library-path "$tree/lib:$tree/usr/lib" "$tree/sbin/apk" "$@"; }
    # The two empty blocks at the end of an archive would end all that follows.
    part() { tar -C work -b 1 --format=ustar --owner=0 --group=0 --numeric-owner -cf - "$1" | head -c -1024 | gzip -9n; }
    package() {
        program "$2" "$4"
        sum=$(sha1sum "work/root/usr/bin/$2" | cut -d ' ' -f 1)
        tar -C work/root --format=pax --pax-option="APK-TOOLS.checksum.SHA1:=$sum,delete=atime,delete=ctime" --owner=0 --group=0 \
            --numeric-owner --sort=name -cf - usr | gzip -9n >work/data.tar.gz
        {
            printf '%s = %s\n' pkgname "$2" pkgver "$3-r0" pkgdesc 'a package' url none size 64 arch noarch license MIT origin "$2" \
                datahash "$(sha256sum work/data.tar.gz | cut -d ' ' -f 1)"
            if [ -n "$5" ]; then echo "depend = $5"; fi
            if [ -n "$6" ]; then echo "depend = !$6"; fi
        } >work/.PKGINFO
        part .PKGINFO | cat - work/data.tar.gz >"$1/$2-$3-r0.apk"
    }
    publish() {
        mkdir "$1/x86_64"
        mv "$1"/*.apk "$1/x86_64/"
        apk index --allow-untrusted --rewrite-arch x86_64 --output work/index "$1"/x86_64/*.apk >/dev/null
        openssl dgst -sha1 -sign "$2.rsa" -out work/.SIGN.RSA.nm.rsa.pub work/index
        part .SIGN.RSA.nm.rsa.pub | cat - work/index >"$1/x86_64/APKINDEX.tar.gz"
    }
    ;;
esac

mkdir artifacts lost clash good
package artifacts nm-needy 1.0 'needy of the artifact, $(nm-lib)' nm-lib ''
package artifacts nm-hello 1.0 'hello of the artifact' '' ''
package lost nm-lost 1.0 'lost' nm-nowhere ''
package clash nm-clash 1.0 'clash' nm-lib nm-hello
package good nm-lib 1.0 'lib of the repository' '' ''
package good nm-hello 1.0 'hello of the repository' '' ''
package good nm-needy 1.0 'needy of the repository, $(nm-lib)' nm-lib ''
package good nm-needy 2.0 'newer needy of the repository, $(nm-lib)' nm-lib ''
for signer in nm other; do
    case $family in
    apk) openssl genrsa -out "$signer.rsa" 2048 2>/dev/null ;;
    *) run gpg --batch --quiet --passphrase '' --quick-generate-key "$signer" rsa2048 sign never ;;
    esac
done
case $family in
apk) openssl rsa -in nm.rsa -pubout -out nm.rsa.pub 2>/dev/null ;;
*) run gpg --armor --export nm >key ;;
esac
cp -r good forged
cp -r good forged-package
publish good nm nm
publish forged other other
if [ "$family" = apk ]; then rm -r forged-package; else publish forged-package nm other; fi
case $family in apk) ;; *) run gpgconf --kill all ;; esac
rm -r work
