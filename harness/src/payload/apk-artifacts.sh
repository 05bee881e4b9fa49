# Says what the packages of the folder are.
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
