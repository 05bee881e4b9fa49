# The artifacts' own repository, as pacman calls it.
own=nestmatrix-package_under_test

# Calls pacman with these arguments and the artifacts, as files or by name, all at once, so that they may depend on each other.
pacman_install() {
    if [ -e "$names" ]; then
        # What is in the cache by their names is something else.
        for file in ./*.pkg.tar*; do
            for cache in $(pacman-conf CacheDir); do rm -f "$cache/${file#./}"; done
        done
        exec pacman --sync --noconfirm --noprogressbar "$@" $(cat "$names")
    fi
    for file in ./*.pkg.tar*; do
        case $file in
        *.sig) ;;
        *) set -- "$@" "$file" ;;
        esac
    done
    exec pacman --upgrade --noconfirm --noprogressbar "$@"
}

get_dependencies() {
    export LC_ALL=C
    # Without any repository there is nothing to be refreshed.
    pacman --sync --refresh --noprogressbar || [ -z "$(pacman-conf --repo-list)" ] || exit $unusable
    pacman_install --downloadonly
}

install_artifacts() {
    export LC_ALL=C
    if [ -e "$got" ]; then pacman_install; fi
    own_settings
    pacman_install --config "$settings"
}

# The system's own settings without its repositories, so that what is missing is said to be missing instead of being looked for on the
# network.
own_settings() {
    settings=$root/tmp/pacman.conf section=
    while read -r line || [ -n "$line" ]; do
        case $line in "["*) section=$line ;; esac
        case $section in "[options]" | "[$own]") printf '%s\n' "$line" ;; esac
    done </etc/pacman.conf >"$settings"
}

make_repository() {
    command -v repo-add >/dev/null || {
        echo "error: this system has no repo-add, which makes repositories"
        exit 1
    }
    for file in ./*.pkg.tar*; do
        case $file in *.sig) continue ;; esac
        said=$(pacman --query --file "$file") || exit
        echo "$own/${said%% *}" >>"$names"
        take "$file" "${file#./}"
        set -- "$@" "$repository/${file#./}"
    done
    repo-add --quiet "$repository/$own.db.tar.gz" "$@" && cp "$repository/$own.db.tar.gz" "$unsigned" || exit
}

# It is installed from by its name, so that its place among the others does not matter.
open_repository() {
    export LC_ALL=C
    cp "$signature" "$repository/$own.db.sig" || exit
    add_repository package_under_test "[$own]
SigLevel = PackageNever DatabaseRequired
Server = file://$repository" package_under_test
    own_settings
    pacman --config "$settings" --sync --refresh --noprogressbar
}

# A key counts only once it is signed by the system's own.
add_repository() {
    printf '\n%s\n' "$2" >>/etc/pacman.conf || exit
    if [ -n "$3" ]; then
        cat >"$root/tmp/key" && pacman-key --init && pacman-key --add "$root/tmp/key" || exit
        for found in $(gpg --homedir /etc/pacman.d/gnupg --with-colons --show-keys "$root/tmp/key" | sed -n 's/^fpr:*\([0-9A-F]*\):*$/\1/p' | head -n 1); do
            pacman-key --lsign-key "$found" || exit
        done
    fi
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
