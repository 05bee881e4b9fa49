# Installs every package of this folder, offline, with nobody to answer questions.
cd "$root/artifacts" || exit
# One stream: what is said on both only makes sense in its order.
exec 2>&1
export LC_ALL=C.UTF-8 ASSUME_ALWAYS_YES=yes

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

# Each finds what it depends on in this folder and installs it along. What is installed when its turn comes, pkg leaves as it is,
# unless it is told to replace it.
for file in ./*.pkg; do
    name=$(pkg query -F "$file" %n) || exit
    if ! pkg info -e "$name"; then
        pkg add "$file" || exit
    elif [ "$(pkg query -F "$file" '%v %Fp %Fs' | sort)" != "$(pkg query '%v %Fp %Fs' "$name" | sort)" ]; then
        pkg add -f "$file" || exit
    fi
done
