# Installs every package of this folder, offline, with nobody to answer questions.
cd "$root/artifacts" || exit
# One stream: what is said on both only makes sense in its order.
exec 2>&1
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
