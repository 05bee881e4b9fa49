# Packages of which a script has failed, whenever that was.
broken() {
    for database in /lib/apk/db/installed /usr/lib/apk/db/installed; do
        if [ -e "$database" ]; then awk '/^P:/ { name = $0 } /^f:.*[fsx]/ { print name }' "$database"; fi
    done
}

# The artifacts' own repository, as apk tags what is to come from there and from nowhere else.
own=nestmatrix-package_under_test

# apk only downloads what it installs: it does so in a copy of what it knows of this system, without running anything, and keeps what it
# downloaded and proved. What the artifacts themselves make of it (a file of two packages) is left to the installation.
get_dependencies() {
    export LC_ALL=C.UTF-8
    copy=$root/tmp/system
    rm -rf "$copy"
    mkdir -p "$copy/etc" && cp -R /etc/apk "$copy/etc/" || exit
    rm -rf "$copy/etc/apk/cache" "$copy/etc/apk/commit_hooks.d"
    mkdir "$copy/etc/apk/cache" || exit
    for database in lib/apk usr/lib/apk; do
        if [ -e "/$database/db/installed" ]; then mkdir -p "$copy/$database" && cp -R "/$database/db" "$copy/$database/" || exit; fi
    done

    apk update --no-progress --wait 60 --cache-dir "$copy/etc/apk/cache" || exit $unusable
    if [ -e "$names" ]; then set -- $(cat "$names"); else set -- --allow-untrusted ./*.apk; fi
    apk add --root "$copy" --simulate --no-progress "$@" >"$root/tmp/changes" || {
        cat "$root/tmp/changes"
        exit 1
    }
    apk add --root "$copy" --no-scripts --no-progress "$@"
    tab=$(printf '\t')
    record() { printf '%s\n' "$2"; }
    artifacts=" $(list_artifacts | cut -f 1,2 | tr '\t\n' '- ') "
    # `(1/2) Installing libx (1.0-r0)`, `(2/2) Upgrading liby (1.0-r0 -> 1.1-r0)`
    sed -nE 's/^\([ 0-9]+\/[0-9]+\) [A-Z][a-z]+ ([^ @]+)[^ ]* \((.* )?([^ ]+)\).*$/\1-\3/p' "$root/tmp/changes" >"$root/tmp/wanted"
    while read -r wanted; do
        case $artifacts in *" $wanted "*) continue ;; esac
        for file in "$copy/etc/apk/cache/$wanted".*.apk; do
            [ -e "$file" ] && continue
            echo "ERROR: $wanted: it was not downloaded"
            exit $unusable
        done
    done <"$root/tmp/wanted"
}

install_artifacts() {
    export LC_ALL=C.UTF-8
    before=$(broken)

    # All at once, so that they may depend on each other; nobody has to have signed files; without any repository but their own, so that
    # what is missing is said to be missing instead of being looked for on the network, but for what was got before. apk-tools 2 and 3
    # have the same names for all of it.
    if [ -e "$names" ]; then set -- $(cat "$names"); else set -- --allow-untrusted ./*.apk; fi
    set -- --no-network --no-progress --wait 60 "$@"
    if [ -e "$got" ]; then
        set -- --cache-dir "$root/tmp/system/etc/apk/cache" "$@"
    else
        if [ ! -e "$names" ]; then echo "# none" >"$root/tmp/repositories" || exit; fi
        set -- --repositories-file "$root/tmp/repositories" "$@"
    fi
    apk add "$@"
    code=$?

    # It exits with the number of packages that are broken: some may have been before.
    now=$(broken)
    if [ $code -ne 0 ] && [ -n "$before" ] && [ "$before" = "$now" ] && [ $code -eq "$(echo "$now" | wc -l)" ]; then
        echo "apk counts packages that were broken before: $(echo $now)"
        exit 0
    fi
    exit $code
}

# apk finds a key by the name of its file.
add_repository() {
    if [ -n "$3" ]; then cat >"/etc/apk/keys/$3" || exit; fi
    printf '%s\n' "$2" >>/etc/apk/repositories
}

make_repository() {
    export LC_ALL=C.UTF-8
    tab=$(printf '\t')
    record() {
        if [ "$1" = unread ]; then
            echo "ERROR: $2: apk cannot read it" >&2
            exit 1
        fi
        printf '%s\t%s\n' "$2" "$3"
    }
    list_artifacts >"$root/tmp/listed"
    while IFS=$tab read -r name version arch identity file; do
        echo "$name@$own" >>"$names"
        # apk looks for a package by the CPU that the list says.
        mkdir -p "$repository/$arch" || exit
        take "$file" "$arch/$name-$version.apk"
    done <"$root/tmp/listed"
    apk index --allow-untrusted --output "$unsigned" ./*.apk || exit
}

# The signature is an archive before that of the list, without the empty blocks at the end of archives.
open_repository() {
    export LC_ALL=C.UTF-8
    folder=$repository/$(apk --print-arch) name=.SIGN.RSA.$own.rsa.pub
    mkdir -p "$folder" && cd "$root/tmp" && cp "$signature" "$name" || exit
    tar -cf - "$name" | head -c 1024 | gzip -c >"$folder/APKINDEX.tar.gz" && cat "$unsigned" >>"$folder/APKINDEX.tar.gz" || exit
    add_repository package_under_test "@$own $repository" "$own.rsa.pub"
    grep "^@$own " /etc/apk/repositories >"$root/tmp/repositories"
    # What is wrong about a list is only a warning of apk's.
    apk update --repositories-file "$root/tmp/repositories" --no-progress --wait 60 >"$root/tmp/said" 2>&1
    code=$?
    cat "$root/tmp/said"
    if grep -q "^WARNING: " "$root/tmp/said"; then code=1; fi
    exit $code
}

list_artifacts() {
    for file in ./*.apk; do
        [ -e "$file" ] || continue
        rm -f "$root/tmp/index"
        if apk index --allow-untrusted --output "$root/tmp/index" "$file" >/dev/null 2>&1; then
            said=$(tar -xzOf "$root/tmp/index" APKINDEX 2>/dev/null | awk -v OFS="$tab" '
                /^[PVAC]:/ { field[substr($0, 1, 1)] = substr($0, 3) }
                END { print field["P"], field["V"], field["A"], field["C"] }')
        else
            # A package of apk-tools 3: what was asked for is pinned by its digest then.
            said=$(apk adbdump "$file" 2>/dev/null | awk -v OFS="$tab" '
                /^[a-z]/ { part = $1 }
                part == "info:" && /^  (name|version|arch): / { field[$1] = $2 }
                END { print field["name:"], field["version:"], field["arch:"], "pinned" }')
        fi
        case $said in
        "$tab"* | '') record unread "$file" ;;
        *) record file "$said" "$file" ;;
        esac
    done
    rm -f "$root/tmp/index"
}

list_packages() {
    database=/lib/apk/db/installed
    if [ ! -e "$database" ]; then database=/usr/lib/apk/db/installed; fi
    awk -v mark="$mark" -v OFS="$tab" '
        function done() {
            if ("P" in field) {
                state = field["f"] ~ /[fsx]/ ? "broken" : "installed"
                print mark, "have", field["P"], field["V"], field["A"], state
                print mark, "proof", field["P"], field["V"], field["A"], field["C"]
                # A version that was asked for by its file.
                if (pins[field["P"] "><" field["C"]]) print mark, "proof", field["P"], field["V"], field["A"], "pinned"
            }
            split("", field)
        }
        FILENAME ~ /world$/ { pins[$0] = 1; next }
        /^[PVACf]:/ { field[substr($0, 1, 1)] = substr($0, 3) }
        /^$/ { done() }
        END { done() }
    ' /etc/apk/world "$database" || exit
}
