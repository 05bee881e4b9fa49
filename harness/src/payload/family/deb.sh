install_artifacts() {
    # Words a person and a program can read; no questions; no service manager of services that asks some of its own.
    export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
    export APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1

    set -- ./*.deb
    command -v apt-get >/dev/null || exec dpkg --install --force-confdef --force-confold "$@"

    # All at once, so that they may depend on each other. What is missing cannot be downloaded and is said to be missing
    # (not --no-download: with it, apt loses the path of a package it was given as a file).
    # --reinstall: the same version may be installed already, with other content.
    # Sandbox: apt's own user cannot read a folder of root's, and apt would complain. Lock: a timer of the system may be at work.
    given=$root/tmp/given-to-dpkg
    : >"$given" || exit
    apt-get install --yes --no-install-recommends --allow-downgrades --reinstall \
        -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 \
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 \
        -o "DPkg::Pre-Install-Pkgs::=cat >>'$given'" \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" || exit

    # A repository may have a package of the same name and version, and then apt takes that one. What it depends on is there now.
    left=
    for file; do
        if grep -qxF "$PWD/${file#./}" "$given"; then continue; fi
        if [ -z "$left" ]; then set --; fi
        left=yes
        set -- "$@" "$file"
    done
    if [ -n "$left" ]; then
        echo "apt-get took another file of the same version: dpkg installs $*"
        exec dpkg --install --force-confdef --force-confold "$@"
    fi
}

list_artifacts() {
    ours=" all $(dpkg --print-architecture) $(dpkg --print-foreign-architectures | tr '\n' ' ') "
    control=$root/tmp/control
    for file in ./*.deb; do
        [ -e "$file" ] || continue
        rm -rf "$control"
        dpkg-deb --control "$file" "$control" >/dev/null 2>&1
        name='' version='' architecture='' identity=unpacked
        if [ -r "$control/control" ]; then
            while IFS= read -r line; do
                value=${line#*:}
                value=${value#"${value%%[! ]*}"} value=${value%"${value##*[! ]}"}
                case $line in
                [Pp]ackage:*) name=$value ;;
                [Vv]ersion:*) version=$value ;;
                [Aa]rchitecture:*) architecture=$value ;;
                esac
            done <"$control/control"
            # dpkg keeps this list as it came.
            if [ -e "$control/md5sums" ]; then identity=$(sha256sum <"$control/md5sums"); fi
        fi
        case $name/$architecture in
        */ | /*) record unread "$file" ;;
        *)
            case $ours in
            *" $architecture "*) record file "$name" "$version" "$architecture" "${identity%% *}" "$file" ;;
            *)
                record left "$name" "$version" "$architecture" "$file"
                mv "$file" "$file.left-out" || exit
                ;;
            esac
            ;;
        esac
    done
    rm -rf "$control"
}

list_packages() {
    # Not db:Status-Status, the last word of this alone: dpkg of before 2014 does not know it.
    dpkg-query --show --showformat "$mark${tab}have$tab\${Package}$tab\${Version}$tab\${Architecture}$tab\${Status}\\n" || exit
    while IFS=$tab read -r name version architecture; do
        list=/var/lib/dpkg/info/$name
        if [ -e "$list:$architecture.list" ]; then list=$list:$architecture; fi
        if [ "$list.list" -nt "$started" ]; then record proof "$name" "$version" "$architecture" unpacked; fi
        if [ -e "$list.md5sums" ]; then
            sums=$(sha256sum <"$list.md5sums")
            record proof "$name" "$version" "$architecture" "${sums%% *}"
        fi
    done
}
