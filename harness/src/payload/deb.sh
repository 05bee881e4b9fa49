# Installs every package of this folder that is for this system, offline, with nobody to answer questions.
cd "$root/artifacts" || exit
# One stream: what apt and dpkg say on both only makes sense in its order.
exec 2>&1
# Words a person and a program can read; no questions; no service manager of services that asks some of its own.
export LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
export APT_LISTCHANGES_FRONTEND=none NEEDRESTART_SUSPEND=1

ours=" all $(dpkg --print-architecture) $(dpkg --print-foreign-architectures | tr '\n' ' ') "
set --
for file in ./*.deb; do
    [ -e "$file" ] || continue
    architecture=$(dpkg-deb -f "$file" Architecture) || exit
    case $ours in
    *" $architecture "*) set -- "$@" "$file" ;;
    *) echo "nestmatrix: $file is for $architecture and this system is not: left out" ;;
    esac
done
[ $# -gt 0 ] || exit 90

if command -v apt-get >/dev/null; then
    # All at once, so that they may depend on each other. What is missing cannot be downloaded and is said to be missing
    # (not --no-download: with it, apt loses the path of a package it was given as a file).
    # Sandbox: apt's own user cannot read a folder of root's, and apt would complain. Lock: a timer of the system may be at work.
    apt-get install --yes --no-install-recommends --allow-downgrades \
        -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10 \
        -o APT::Sandbox::User=root -o DPkg::Lock::Timeout=60 -o Dpkg::Use-Pty=0 \
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" || exit
else
    dpkg --install --force-confdef --force-confold "$@" || exit
fi

for file; do
    dpkg-query -W -f 'nestmatrix: ${Package} ${Version} is ${db:Status-Status}\n' "$(dpkg-deb -f "$file" Package)"
done
