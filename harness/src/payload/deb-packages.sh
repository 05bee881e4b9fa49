# Says what is installed, and of each package named what proves its content.
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
