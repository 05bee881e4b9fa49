# Puts the program that comes in on standard input to work behind the port $1 of this guest, in front of an SSH server.
set -eu
modprobe -q virtio_console || :
port=/dev/virtio-ports/$1
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ ! -e "$port" ] || break
    sleep 0.2
done
if [ ! -e "$port" ]; then
    # The link is udev's work, which not every system has.
    for name in /sys/class/virtio-ports/*/name; do
        found=
        read -r found 2>/dev/null <"$name" || :
        if [ "$found" = "$1" ]; then port=${name%/name} port=/dev/${port##*/}; fi
    done
fi
[ -e "$port" ] || { echo "this guest has no virtio ports" >&2; exit 1; }
# A guest of a root file system has its server outside of it.
sshd=/run/nestmatrix/sshd
[ -x "$sshd" ] || sshd=$(PATH=$PATH:/usr/sbin:/usr/local/sbin:/sbin command -v sshd) || { echo "this guest has no OpenSSH server" >&2; exit 1; }
program=$(readlink -f "$(mktemp -p /var/tmp)")
trap 'rm -f "$program"' EXIT
cat >"$program"
chmod 700 "$program"
launch=
! command -v setsid >/dev/null || launch=setsid
$launch "$program" "$port" "$sshd" -i -o LoginGraceTime=0 </dev/null >/dev/null 2>&1 &
# It has begun when it is what its process runs: then nothing needs its name any more.
begun=
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ "$(readlink "/proc/$!/exe")" != "$program" ] || { begun=1; break; }
    kill -0 $! 2>/dev/null || break
    sleep 0.5
done
[ "$begun" ] || { echo "the program that waits did not begin" >&2; exit 1; }
