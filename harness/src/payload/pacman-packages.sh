# Says what is installed, and of each package named what proves its content.
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
