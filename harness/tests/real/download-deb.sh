# Downloads the package $2 of the Debian release $1 as one file into the folder $3, from where this machine has its own packages: the
# newest one, as guests would, because what it depends on is the newest there, too.
set -eu
release=$1 package=$2 to=$3
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
mkdir -p "$root/lists/partial" "$root/archives/partial"
own=$(. /etc/os-release && echo "$VERSION_CODENAME")
# The first address that this machine has its own release from.
from=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | grep -v '^#' |
    sed -nE "s#^URIs: *([^ ]+).*#\1#p; s#^deb .*(https?://[^ ]+) +$own +.*#\1#p" | grep -E '/debian/?$' | head -n 1)
key=/usr/share/keyrings/debian-archive-keyring.gpg
suite() { echo "deb [signed-by=$key] $1 $2 main" >>"$root/sources.list"; }
suite "$from" "$release"
# As in the images: the support of Debian 11 is over, and they have its release alone.
if [ "$release" != bullseye ]; then
    suite "$from" "$release-updates"
    suite "${from%/}-security" "$release-security"
fi
: >"$root/status"
apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$root/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$root/lists" -o Dir::State::status="$root/status" -o Dir::Cache="$root" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}
apt update
cd "$to" && apt download "$package"
