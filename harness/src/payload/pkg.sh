# Installs every package of this folder, offline, with nobody to answer questions.
cd "$root/artifacts" || exit
# One stream: what is said on both only makes sense in its order.
exec 2>&1
export LC_ALL=C.UTF-8 ASSUME_ALWAYS_YES=yes

set -- ./*.pkg
[ -e "$1" ] || exit 90

# FreeBSD comes without pkg, with a program of that name that fetches it: from the network, unless it is among these.
if ! pkg -N >/dev/null 2>&1; then
    own=
    for file in ./pkg-[0-9]*.pkg; do if [ -e "$file" ]; then own=$file; fi; done
    if [ -z "$own" ]; then
        echo "pkg: it is not installed on this system, and not among the artifacts"
        exit 1
    fi
    pkg add "$own" || exit
fi

# Each finds what it depends on in this folder and installs it along; what is there when its turn comes would be refused.
for file; do
    name=$(pkg query -F "$file" %n-%v) || exit
    if ! pkg info -e "$name"; then pkg add "$file" || exit; fi
    pkg query 'nestmatrix: %n %v is installed' "$name" || exit
done
