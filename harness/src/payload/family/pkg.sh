# Installs what the artifacts depend on and what is not installed: pkg adds a file only if that is there.
get_dependencies() {
    export LC_ALL=C.UTF-8 ASSUME_ALWAYS_YES=yes
    if ! pkg -N >/dev/null 2>&1; then pkg bootstrap || exit $unusable; fi
    pkg update || exit $unusable
    ours=" "
    for file in ./*.pkg; do ours="$ours$(pkg query -F "$file" %n) "; done
    for file in ./*.pkg; do
        for wanted in $(pkg query -F "$file" %dn); do
            case $ours in *" $wanted "*) continue ;; esac
            if ! pkg info -e "$wanted"; then pkg install -y "$wanted" || exit; fi
        done
    done
}

install_artifacts() {
    export LC_ALL=C.UTF-8 ASSUME_ALWAYS_YES=yes

    # FreeBSD comes without pkg, with a program of that name that fetches it: from the network, unless it is among these.
    if ! pkg -N >/dev/null 2>&1; then
        own=
        for file in ./pkg-[0-9]*.pkg; do if [ -e "$file" ]; then own=$file; fi; done
        if [ -z "$own" ]; then
            echo "pkg: it is not installed on this system, and not among the artifacts"
            exit 1
        fi
        pkg add "$own" || exit
    fi

    # Each finds what it depends on in this folder and installs it along. What is installed when its turn comes, pkg leaves as it is,
    # unless it is told to replace it.
    for file in ./*.pkg; do
        name=$(pkg query -F "$file" %n) || exit
        if ! pkg info -e "$name"; then
            pkg add "$file" || exit
        elif [ "$(pkg query -F "$file" '%v %Fp %Fs' | sort)" != "$(pkg query '%v %Fp %Fs' "$name" | sort)" ]; then
            pkg add -f "$file" || exit
        fi
    done
}

add_repository() {
    mkdir -p /usr/local/etc/pkg/repos /usr/local/etc/pkg/keys || exit
    printf '%s\n' "$2" >"/usr/local/etc/pkg/repos/nestmatrix-$1.conf" || exit
    if [ -n "$3" ]; then cat >"/usr/local/etc/pkg/keys/$3"; fi
}

# Where pkg is yet to be installed, what stands in for it would fetch it.
list_artifacts() {
    for file in ./*.pkg; do
        [ -e "$file" ] || continue
        if pkg -N >/dev/null 2>&1 && said=$(pkg query -F "$file" "%n$tab%v$tab%q" 2>/dev/null) && [ -n "$said" ]; then
            pkg query -F "$file" '%Fp %Fs' | sort >"$root/tmp/files-of-${said%%"$tab"*}"
            record file "$said" unpacked "$file"
        else
            record unread "$file"
        fi
    done
}

# A package is what came if it was registered since then, or has the same files.
list_packages() {
    if pkg -N >/dev/null 2>&1; then
        pkg query "$mark${tab}have$tab%n$tab%v$tab%q${tab}installed" || exit
        while IFS=$tab read -r name version abi; do
            pkg query '%Fp %Fs' "$name" | sort >"$root/tmp/files"
            if [ "$(pkg query %t "$name")" -ge "$(stat -f %m "$started")" ] ||
                cmp -s "$root/tmp/files" "$root/tmp/files-of-$name"; then
                record proof "$name" "$version" "$abi" unpacked
            fi
        done
    fi
}
