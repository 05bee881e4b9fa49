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
# From the first folder in which it can be run: any of them may be mounted noexec or read-only. Without arguments it only says how it is
# used.
program=
trap '[ -z "$program" ] || rm -f "$program"' EXIT
code=
for folder in /var/tmp /run /var/lib /root /opt /dev/shm /tmp; do
    next=$(mktemp -p "$folder" 2>/dev/null) || continue
    next=$(readlink -f "$next")
    if [ -z "$program" ]; then
        cat >"$next"
    else
        cat <"$program" >"$next"
        rm -f "$program"
    fi
    program=$next
    chmod 700 "$program"
    code=0
    "$program" </dev/null >/dev/null 2>&1 || code=$?
    [ "$code" = 126 ] || break
done
case $code in
'') echo "there is no folder that can be written to" >&2; exit 1 ;;
126) echo "programs cannot be run: /var/tmp, /run, /var/lib, /root, /opt, /dev/shm and /tmp are mounted noexec" >&2; exit 1 ;;
esac
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
