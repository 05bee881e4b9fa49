# Installs every package of this folder that is for this system, offline, with nobody to answer questions.
# Physical: apt names files by their real paths.
cd -P "$root/artifacts" || exit
# One stream: what apt and dpkg say on both only makes sense in its order.
exec 2>&1
# Words a person and a program can read; no questions; no service manager of services that asks some of its own.
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1

set -- ./*.deb
command -v apt-get >/dev/null || exec dpkg --install --force-confdef --force-confold "$@"

# All at once, so that they may depend on each other. What is missing cannot be downloaded and is said to be missing
# (not --no-download: with it, apt loses the path of a package it was given as a file).
# --reinstall: the same version may be installed already, with other content.
# Sandbox: apt's own user cannot read a folder of root's, and apt would complain. Lock: a timer of the system may be at work.
given=$root/tmp/given-to-dpkg
: >"$given" || exit
apt-get install --yes --no-install-recommends --allow-downgrades --reinstall \
    -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 \
    -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 \
    -o "DPkg::Pre-Install-Pkgs::=cat >>'$given'" \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" || exit

# A repository may have a package of the same name and version, and then apt takes that one. What it depends on is there now.
left=
for file; do
    if grep -qxF "$PWD/${file#./}" "$given"; then continue; fi
    if [ -z "$left" ]; then set --; fi
    left=yes
    set -- "$@" "$file"
done
if [ -n "$left" ]; then
    echo "apt-get took another file of the same version: dpkg installs $*"
    exec dpkg --install --force-confdef --force-confold "$@"
fi
