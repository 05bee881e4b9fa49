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

get_dependencies() {
    export LC_ALL=C ZYPP_LOCK_TIMEOUT=60
    if command -v dnf >/dev/null; then
        # --assumeyes: the keys that a repository's settings name are taken. Without any repository there is nothing to be refreshed.
        dnf makecache --refresh --assumeyes --setopt='*.skip_if_unavailable=0' || [ -z "$(dnf repolist --quiet)" ] || exit $unusable
        dnf_install --downloadonly --setopt='*.skip_if_unavailable=0' ./*.rpm
    elif command -v zypper >/dev/null; then
        zypper --non-interactive refresh
        # 6: there is no repository.
        case $? in 0 | 6) ;; *) exit $unusable ;; esac
        zypper_install install --download-only --allow-unsigned-rpm --no-recommends --oldpackage ./*.rpm
    elif command -v yum >/dev/null; then
        yum makecache --assumeyes || exit $unusable
        yum install --assumeyes --downloadonly --setopt=localpkg_gpgcheck=0 ./*.rpm
    else
        echo "error: this system has rpm, but no dnf, zypper or yum that could get packages"
        exit 1
    fi
}

install_artifacts() {
    # Not C.UTF-8: systems of before 2020 do not have it, and say so in every line.
    export LC_ALL=C ZYPP_LOCK_TIMEOUT=60

    set -- ./*.rpm

    # All at once, so that they may depend on each other; nobody has to have signed them; without any repository, so that what is
    # missing is said to be missing instead of being looked for on the network, but for what was got before.
    if command -v dnf >/dev/null; then
        if [ -e "$got" ]; then
            dnf_install --cacheonly "$@" || exit
        else
            dnf_install --setopt='*.enabled=0' --setopt=gpgcheck=0 "$@" || exit
        fi
    elif command -v zypper >/dev/null; then
        if [ -e "$got" ]; then
            zypper_install install --allow-unsigned-rpm --no-recommends --oldpackage "$@" || exit
        else
            mkdir -p "$root/tmp/repositories" || exit
            zypper_install --no-gpg-checks --reposd-dir "$root/tmp/repositories" \
                install --allow-unsigned-rpm --no-recommends --oldpackage "$@"
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
        --qf "$mark${tab}have$tab$fields${tab}installed\\n$mark${tab}proof$tab$fields$tab$identity\\n" || exit
}
