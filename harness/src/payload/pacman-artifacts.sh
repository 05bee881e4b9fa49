# Says what the packages of the folder are.
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
