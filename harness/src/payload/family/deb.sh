# Words a person and a program can read; no questions; no service manager of services that asks some of its own.
apt_environment() {
    export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
    export APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1
}

# All artifacts at once, so that they may depend on each other.
# --reinstall: the same version may be installed already, with other content.
# Sandbox: apt's own user cannot read a folder of root's, and apt would complain. Lock: a timer of the system may be at work.
apt_install() {
    apt-get install --yes --no-install-recommends --allow-downgrades --reinstall \
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

# The artifacts' own repository, as apt's settings name it.
own=/etc/apt/sources.list.d/nestmatrix-package_under_test.list

# Sets what is to be installed from where: the artifacts as files; or their names, from their own repository alone until something was
# got from others, and then it comes before those. For apt may take two files of the same version for the same, and fetches the first.
choose() {
    sources='' wanted=./*.deb
    if [ ! -e "$names" ]; then return; fi
    wanted=$(cat "$names") parts=-
    if [ "$1" = all ]; then
        parts=$root/tmp/sources.list.d
        rm -rf "$parts"
        mkdir "$parts" || exit
        for list in /etc/apt/sources.list /etc/apt/sources.list.d/*; do
            # Both may have a file of one name.
            as=$(echo "${list#/etc/apt/}" | tr / _)
            if [ -f "$list" ] && [ "$list" != "$own" ]; then cp "$list" "$parts/$as" || exit; fi
        done
    fi
    sources="-o Dir::Etc::sourcelist=$own -o Dir::Etc::sourceparts=$parts"
}

get_dependencies() {
    apt_environment
    command -v apt-get >/dev/null || {
        echo "E: this system has dpkg, but no apt-get that could get packages"
        exit 1
    }
    choose all
    # Nobody reads what packages are for.
    apt-get update $sources -o Acquire::Retries=1 -o Acquire::Languages=none -o APT::Update::Error-Mode=any \
        -o DPkg::Lock::Timeout=60 || exit $unusable
    apt_install --download-only -o Acquire::Retries=1 $sources $wanted
}

offline="-o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10"

install_by_name() {
    if [ -e "$got" ]; then choose all; else choose own; fi
    apt_install $offline $sources $wanted
    exit
}

install_artifacts() {
    apt_environment
    if [ -e "$names" ]; then install_by_name; fi

    set -- ./*.deb
    command -v apt-get >/dev/null || exec dpkg --install --force-confdef --force-confold "$@"

    # What is missing cannot be downloaded and is said to be missing (not --no-download: with it, apt loses the path of a package it was
    # given as a file).
    given=$root/tmp/given-to-dpkg
    : >"$given" || exit
    apt_install $offline \
        -o "DPkg::Pre-Install-Pkgs::=cat >>'$given'" "$@" || exit

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

# apt takes a key from a file whose ending says how it is written.
add_repository() {
    base=/etc/apt/sources.list.d/nestmatrix-$1 key=''
    if [ -n "$3" ]; then
        mkdir -p /etc/apt/keyrings && cat >"$root/tmp/key" || exit
        case $(head -c 10 "$root/tmp/key") in
        -----BEGIN) key=/etc/apt/keyrings/nestmatrix-$1.asc ;;
        *) key=/etc/apt/keyrings/nestmatrix-$1.gpg ;;
        esac
        install -m 644 "$root/tmp/key" "$key" || exit
    fi
    printf '%s\n' "$2" >"$root/tmp/description" || exit
    if grep -qiE '^types:' "$root/tmp/description"; then
        sed -E "${key:+"/^[Tt][Yy][Pp][Ee][Ss]:/a Signed-By: $key"}" "$root/tmp/description" >"$base.sources"
    else
        sed -E "${key:+"s|^(deb(-src)?)[[:space:]]+\\[([^]]*)\\]|\\1 [\\3 signed-by=$key]|; s|^(deb(-src)?)[[:space:]]+([^[[:space:]])|\\1 [signed-by=$key] \\3|"}" \
            "$root/tmp/description" >"$base.list"
    fi
}

make_repository() {
    command -v apt-get >/dev/null || {
        echo "E: this system has dpkg, but no apt-get that installs by name"
        exit 1
    }
    for file in ./*.deb; do
        dpkg-deb --field "$file" >"$root/tmp/control" || exit
        name=$(dpkg-deb --show --showformat='${Package} ${Version} ${Architecture}' "$file") || exit
        # With its version: what the system was told to prefer is no reason to test something else.
        echo "$name" | sed -E 's/^([^ ]+) ([^ ]+) all$/\1=\2/; s/^([^ ]+) ([^ ]+) ([^ ]+)$/\1:\3=\2/' >>"$names"
        name=$(dpkg-deb --show --showformat='${Package}_${Version}_${Architecture}.deb' "$file" | tr : _)
        take "$file" "$name"
        # An empty line ends what is said of a package.
        sed '/^[[:space:]]*$/d' "$root/tmp/control"
        printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$name" $(wc -c <"$file") $(sha256sum <"$file" | cut -d ' ' -f 1)
    done >"$repository/Packages"
    cd "$repository" || exit
    {
        printf 'Origin: nestmatrix-package_under_test\nDate: %s\nSHA256:\n' "$(date -u -R)"
        printf ' %s %s Packages\n' $(sha256sum <Packages | cut -d ' ' -f 1) $(wc -c <Packages)
    } >Release
    cp Release "$unsigned"
}

# Above 1000 a version wins over every other one, even one that is installed.
open_repository() {
    cp "$signature" "$repository/Release.gpg" || exit
    add_repository package_under_test "deb file:$repository ./" package_under_test.asc
    printf '%s\n' 'Package: *' 'Pin: release o=nestmatrix-package_under_test' 'Pin-Priority: 1001' \
        >/etc/apt/preferences.d/nestmatrix-package_under_test || exit
    apt_environment
    choose own
    apt-get update $sources -o APT::Get::List-Cleanup=0 -o Acquire::Languages=none -o APT::Update::Error-Mode=any \
        -o DPkg::Lock::Timeout=60
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
