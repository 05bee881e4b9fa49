# Sets what rpm is asked for: $fields, name, version and CPU; $identity, what proves the content. Old ones know no SHA-256.
rpm_format() {
    fields="%{NAME}$tab%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}$tab%{ARCH}"
    identity='%{SIGMD5}.%{SHA1HEADER}'
    if rpm --querytags | grep -qx SHA256HEADER; then identity=$identity.%{SHA256HEADER}; fi
}

# dnf's settings for a given installation. By settings, because dnf 5 has other options for them than dnf 4.
dnf_install() {
    dnf install --assumeyes --setopt=localpkg_gpgcheck=0 --setopt=install_weak_deps=0 "$@"
}

# zypper's, and its exit codes: done, and the system or zypper itself should be started again, or there was no repository.
zypper_install() {
    zypper --non-interactive --no-refresh "$@"
    code=$?
    case $code in
    0 | 102 | 103 | 106) return 0 ;;
    *) return "$code" ;;
    esac
}

# The artifacts' own repository, as package managers call it.
own=nestmatrix-package_under_test

# zypper's arguments for artifacts: files, or names from their own repository. Those it is to install whatever it has or finds elsewhere.
zypper_wanted() {
    if [ -e "$names" ]; then set -- "$@" --force --from "$own" $(cat "$names"); else set -- "$@" --allow-unsigned-rpm ./*.rpm; fi
    zypper_install "$@"
}

get_dependencies() {
    export LC_ALL=C ZYPP_LOCK_TIMEOUT=60
    wanted=./*.rpm
    if [ -e "$names" ]; then wanted=$(cat "$names"); fi
    if command -v dnf >/dev/null; then
        # --assumeyes: the keys that a repository's settings name are taken. Without any repository there is nothing to be refreshed.
        dnf makecache --refresh --assumeyes --setopt='*.skip_if_unavailable=0' || [ -z "$(dnf repolist --quiet)" ] || exit $unusable
        dnf_install --downloadonly --setopt='*.skip_if_unavailable=0' $wanted
    elif command -v zypper >/dev/null; then
        zypper --non-interactive refresh
        # 6: there is no repository.
        case $? in 0 | 6) ;; *) exit $unusable ;; esac
        zypper_wanted install --download-only --no-recommends --oldpackage
    elif command -v yum >/dev/null; then
        yum makecache --assumeyes || exit $unusable
        yum install --assumeyes --downloadonly --setopt=localpkg_gpgcheck=0 $wanted
    else
        echo "error: this system has rpm, but no dnf, zypper or yum that could get packages"
        exit 1
    fi
}

# Installs these names from the artifacts' own repository, and from it alone, but for what was got before.
install_by_name() {
    if command -v dnf >/dev/null; then
        if [ -e "$got" ]; then dnf_install --cacheonly "$@"; else dnf_install --repo="$own" "$@"; fi
    elif command -v zypper >/dev/null; then
        set -- install --no-recommends --oldpackage
        if [ ! -e "$got" ]; then set -- --reposd-dir "$root/tmp/repositories" "$@"; fi
        zypper_wanted "$@"
    elif [ -e "$got" ]; then
        yum install --assumeyes --cacheonly "$@"
    else
        yum install --assumeyes --disablerepo='*' --enablerepo="$own" "$@"
    fi
}

install_artifacts() {
    # Not C.UTF-8: systems of before 2020 do not have it, and say so in every line.
    export LC_ALL=C ZYPP_LOCK_TIMEOUT=60

    set -- ./*.rpm

    # All at once, so that they may depend on each other; nobody has to have signed them; without any repository, so that what is
    # missing is said to be missing instead of being looked for on the network, but for what was got before.
    if [ -e "$names" ]; then
        install_by_name $(cat "$names") || exit
    elif command -v dnf >/dev/null; then
        if [ -e "$got" ]; then
            dnf_install --cacheonly "$@" || exit
        else
            dnf_install --setopt='*.enabled=0' --setopt=gpgcheck=0 "$@" || exit
        fi
    elif command -v zypper >/dev/null; then
        if [ -e "$got" ]; then
            zypper_wanted install --no-recommends --oldpackage || exit
        else
            mkdir -p "$root/tmp/repositories" || exit
            zypper_wanted --no-gpg-checks --reposd-dir "$root/tmp/repositories" install --no-recommends --oldpackage
            code=$?
            rm -rf "$root/tmp/repositories"
            if [ "$code" -ne 0 ]; then exit "$code"; fi
        fi
    elif command -v yum >/dev/null; then
        if [ -e "$got" ]; then
            yum install --assumeyes --cacheonly --setopt=localpkg_gpgcheck=0 "$@" || exit
        else
            yum install --assumeyes --disablerepo='*' --nogpgcheck "$@" || exit
        fi
    else
        exec rpm --upgrade --oldpackage --replacepkgs "$@"
    fi

    # An installer that finds the same or a newer version installed has nothing to do, and does not fail. rpm replaces it.
    left=
    what='%{NAME} %{VERSION} %{RELEASE} %{ARCH} %{SIGMD5} %{SHA1HEADER}\n'
    for file; do
        wanted=$(rpm --query --nosignature --qf "$what" --package "$file") || exit
        # What is not there at all was refused for a reason.
        found=$(rpm --query --qf "$what" "${wanted%% *}") || continue
        case "
$found
" in
        *"
$wanted
"*) continue ;;
        esac
        if [ -z "$left" ]; then set --; fi
        left=yes
        set -- "$@" "$file"
    done
    if [ -n "$left" ]; then
        echo "another content or version of these was installed and is replaced by rpm: $*"
        exec rpm --upgrade --oldpackage --replacepkgs "$@"
    fi
}

add_repository() {
    folder=/etc/yum.repos.d key=''
    if ! command -v dnf >/dev/null && command -v zypper >/dev/null; then folder=/etc/zypp/repos.d; fi
    mkdir -p "$folder" || exit
    if [ -n "$3" ]; then
        key=/etc/pki/rpm-gpg/nestmatrix-$1
        mkdir -p /etc/pki/rpm-gpg && cat >"$key" && rpm --import "$key" || exit
    fi
    printf '%s\n' "$2" >"$root/tmp/description" || exit
    # dnf does not look among rpm's keys for who signed a list.
    if grep -qiE '^[[:space:]]*gpgkey' "$root/tmp/description"; then key=''; fi
    sed "${key:+"/^\[/a gpgkey=file://$key"}" "$root/tmp/description" >"$folder/nestmatrix-$1.repo"
}

# What a repository's list has of a package, but for what only rpm can need; its file is $1, in the repository $2.
describe() {
    # Tags are control characters until everything else is escaped.
    format=$(tr '<>"' '\001\002\003' <<'end'
<package type="rpm">
<name>%{NAME}</name>
<arch>%{ARCH}</arch>
<version epoch="%|EPOCH?{%{EPOCH}}:{0}|" ver="%{VERSION}" rel="%{RELEASE}"/>
<summary>%{SUMMARY}</summary>
<description/>
<packager/>
<url/>
<time file="%{BUILDTIME}" build="%{BUILDTIME}"/>
<format>
<rpm:license>%{LICENSE}</rpm:license>
<rpm:vendor>%|VENDOR?{%{VENDOR}}|</rpm:vendor>
<rpm:group/>
<rpm:buildhost/>
<rpm:sourcerpm>%|SOURCERPM?{%{SOURCERPM}}|</rpm:sourcerpm>
<rpm:provides>
[<rpm:entry name="%{PROVIDENAME}" flags="%{PROVIDEFLAGS:depflags}" ver="%{PROVIDEVERSION}"/>
]</rpm:provides>
<rpm:requires>
[<rpm:entry name="%{REQUIRENAME}" flags="%{REQUIREFLAGS:depflags}" ver="%{REQUIREVERSION}"/>
]</rpm:requires>
<rpm:conflicts>
[<rpm:entry name="%{CONFLICTNAME}" flags="%{CONFLICTFLAGS:depflags}" ver="%{CONFLICTVERSION}"/>
]</rpm:conflicts>
<rpm:obsoletes>
[<rpm:entry name="%{OBSOLETENAME}" flags="%{OBSOLETEFLAGS:depflags}" ver="%{OBSOLETEVERSION}"/>
]</rpm:obsoletes>
[<file>%{FILENAMES}</file>
]</format>
end
    )
    q=$(printf '\003')
    rpm --query --nosignature --qf "$format
" --package "$1" >"$root/tmp/described" || exit
    # A version is `epoch:version-release`, and flags are two letters. What is not there is `(none)`. What rpm itself can do is in no list.
    sed -E -e "/^.rpm:entry name=$q(\(none\)|rpmlib\\().*/d" -e '/^.file.\(none\)/d' -e '/^.rpm:entry /{' \
        -e "s/ flags=$q *$q ver=$q[^$q]*$q//; s/ flags=$q *= *$q/ flags=${q}EQ$q/" \
        -e "s/ flags=$q *<= *$q/ flags=${q}LE$q/; s/ flags=$q *>= *$q/ flags=${q}GE$q/" \
        -e "s/ flags=$q *< *$q/ flags=${q}LT$q/; s/ flags=$q *> *$q/ flags=${q}GT$q/" \
        -e "s/ ver=$q([0-9]+):/ epoch=$q\\1$q ver=$q/; / epoch=/!s/ ver=$q/ epoch=${q}0$q ver=$q/" \
        -e "s/ ver=$q([^$q-]*)-([^$q]*)$q/ ver=$q\\1$q rel=$q\\2$q/" -e '}' \
        -e 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g' "$root/tmp/described" | tr '\001\002\003' '<>"'
    printf '<checksum type="sha256" pkgid="YES">%s</checksum>\n' $(sha256sum <"$1" | cut -d ' ' -f 1)
    printf '<size package="%s" installed="0" archive="0"/>\n<location href="%s"/>\n</package>\n' $(wc -c <"$1") "$2"
}

make_repository() {
    if ! command -v dnf >/dev/null && ! command -v zypper >/dev/null && ! command -v yum >/dev/null; then
        echo "error: this system has rpm, but no dnf, zypper or yum that installs by name"
        exit 1
    fi
    # A version is what dnf and yum install whatever is installed, and wherever there is a newer one. zypper is told so otherwise.
    named='%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}'
    if ! command -v dnf >/dev/null && command -v zypper >/dev/null; then named='%{NAME}.%{ARCH}'; fi
    lists=$repository/repodata count=0
    mkdir "$lists" || exit
    for file in ./*.rpm; do
        name=$(rpm --query --nosignature --qf '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm' --package "$file") || exit
        rpm --query --nosignature --qf "$named\n" --package "$file" >>"$names" || exit
        take "$file" "$name"
        describe "$file" "$name"
        count=$((count + 1))
    done >"$root/tmp/packages"
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n<metadata xmlns="http://linux.duke.edu/metadata/common" '
        printf 'xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="%s">\n' "$count"
        cat "$root/tmp/packages"
        echo '</metadata>'
    } >"$root/tmp/primary.xml"
    gzip -c "$root/tmp/primary.xml" >"$lists/primary.xml.gz" || exit
    {
        printf '<?xml version="1.0" encoding="UTF-8"?>\n<repomd xmlns="http://linux.duke.edu/metadata/repo">\n'
        printf '<revision>%s</revision>\n<data type="primary">\n' "$(date +%s)"
        printf '<checksum type="sha256">%s</checksum>\n' $(sha256sum <"$lists/primary.xml.gz" | cut -d ' ' -f 1)
        printf '<open-checksum type="sha256">%s</open-checksum>\n' $(sha256sum <"$root/tmp/primary.xml" | cut -d ' ' -f 1)
        printf '<location href="repodata/primary.xml.gz"/>\n<timestamp>%s</timestamp>\n' "$(date +%s)"
        printf '<size>%s</size>\n<open-size>%s</open-size>\n</data>\n</repomd>\n' $(wc -c <"$lists/primary.xml.gz") $(wc -c <"$root/tmp/primary.xml")
    } >"$lists/repomd.xml"
    cp "$lists/repomd.xml" "$unsigned"
}

# A lower number is a higher priority. Hotfixes: or a module of the system with a package of this name hides it.
open_repository() {
    export LC_ALL=C ZYPP_LOCK_TIMEOUT=60
    cp "$signature" "$repository/repodata/repomd.xml.asc" || exit
    add_repository package_under_test "[$own]
name=the package under test
baseurl=file://$repository
enabled=1
priority=1
skip_if_unavailable=0
module_hotfixes=1
gpgcheck=0
pkg_gpgcheck=0
repo_gpgcheck=1" package_under_test
    if command -v dnf >/dev/null; then
        dnf makecache --assumeyes --repo="$own"
    elif command -v zypper >/dev/null; then
        cp /etc/pki/rpm-gpg/nestmatrix-package_under_test "$repository/repodata/repomd.xml.key" &&
            mkdir -p "$root/tmp/repositories" && cp "$folder/$own.repo" "$root/tmp/repositories/" || exit
        zypper --non-interactive --reposd-dir "$root/tmp/repositories" refresh "$own"
    else
        yum makecache --assumeyes --disablerepo='*' --enablerepo="$own"
    fi
}

list_artifacts() {
    rpm_format
    for file in ./*.rpm; do
        [ -e "$file" ] || continue
        if said=$(rpm --query --nosignature --nodigest --qf "$fields$tab$identity" --package "$file" 2>/dev/null); then
            record file "$said" "$file"
        else
            record unread "$file"
        fi
    done
}

list_packages() {
    rpm_format
    rpm --query --all --nosignature --nodigest \
        --qf "$mark${tab}have$tab$fields${tab}installed\\n$mark${tab}proof$tab$fields$tab$identity\\n" >"$root/tmp/installed" || exit
    # Keys that rpm trusts are no packages.
    grep -v "${tab}gpg-pubkey$tab" "$root/tmp/installed"
}
