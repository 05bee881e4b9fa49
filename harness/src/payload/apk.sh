# Installs every package of this folder, offline, with nobody to answer questions.
cd "$root/artifacts" || exit
# One stream: what is said on both only makes sense in its order.
exec 2>&1
export LC_ALL=C.UTF-8

set -- ./*.apk
[ -e "$1" ] || exit 90

# All at once, so that they may depend on each other; nobody has to have signed them; without any repository, so that what is
# missing is said to be missing instead of being looked for on the network. apk-tools 2 and 3 have the same names for all of it.
exec apk add --allow-untrusted --no-network --repositories-file /dev/null --no-progress --wait 60 "$@"
