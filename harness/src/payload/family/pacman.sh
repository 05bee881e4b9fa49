install_artifacts() {
    export LC_ALL=C

    set --
    for file in ./*.pkg.tar*; do
        case $file in
        *.sig) ;;
        *) set -- "$@" "$file" ;;
        esac
    done

    # The system's own settings without its repositories, so that what is missing is said to be missing instead of being looked for
    # on the network.
    settings=$root/tmp/pacman.conf section=
    while read -r line || [ -n "$line" ]; do
        case $line in "["*) section=$line ;; esac
        if [ "$section" = "[options]" ]; then printf '%s\n' "$line"; fi
    done </etc/pacman.conf >"$settings"

    # All at once, so that they may depend on each other.
    exec pacman --upgrade --noconfirm --noprogressbar --config "$settings" "$@"
}

list_artifacts() {
    for file in ./*.pkg.tar*; do
        case $file in *.sig) continue ;; esac
        [ -e "$file" ] || continue
        if said=$(pacman --query --file "$file" 2>/dev/null) && [ -n "$said" ]; then
            identity=unpacked
            # pacman keeps this list of all files as it came.
            if bsdtar -xOqf "$file" .MTREE >"$root/tmp/mtree" 2>/dev/null; then identity=$(sha256sum <"$root/tmp/mtree"); fi
            record file "${said%% *}" "${said#* }" any "${identity%% *}" "$file"
        else
            record unread "$file"
        fi
    done
    rm -f "$root/tmp/mtree"
}

list_packages() {
    said=$(pacman --query) || [ -z "$said" ] || exit
    while read -r name version; do
        if [ -n "$name" ]; then record have "$name" "$version" any installed; fi
    done <<end
$said
end
    database=/var/lib/pacman
    while read -r key is value; do
        if [ "$key$is" = DBPath= ]; then database=$value; fi
    done </etc/pacman.conf
    while IFS=$tab read -r name version architecture; do
        entry=$database/local/$name-$version
        if [ "$entry/desc" -nt "$started" ]; then record proof "$name" "$version" "$architecture" unpacked; fi
        if [ -e "$entry/mtree" ]; then
            sums=$(sha256sum <"$entry/mtree")
            record proof "$name" "$version" "$architecture" "${sums%% *}"
        fi
    done
}
