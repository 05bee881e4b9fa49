# Says what is installed, and of each package named whether it is what came: registered since then, or with the same files.
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
