# Says what the packages of the folder are. Where pkg is yet to be installed, what stands in for it would fetch it.
for file in ./*.pkg; do
    [ -e "$file" ] || continue
    if pkg -N >/dev/null 2>&1 && said=$(pkg query -F "$file" "%n$tab%v$tab%q" 2>/dev/null) && [ -n "$said" ]; then
        pkg query -F "$file" '%Fp %Fs' | sort >"$root/tmp/files-of-${said%%"$tab"*}"
        record file "$said" unpacked "$file"
    else
        record unread "$file"
    fi
done
