# Gives a guest of a template an identity of its own: machine id $1, name $2, and the SSH host keys on standard input.
set -eu
# Where the server is: in a root of its own if the guest is one of a root file system.
root=
if [ -L /run/nestmatrix/sshd ]; then root=$(readlink /run/nestmatrix/sshd) root=${root%/init}; fi
# One after the other, public half first; one whose file was removed stays away.
for kind in ecdsa ed25519; do
    key=$root/etc/ssh/ssh_host_${kind}_key
    private=
    while IFS= read -r line; do
        case $line in
        -----END*) private="$private$line" && break ;;
        ssh-* | ecdsa-*) public=$line ;;
        *) private="$private$line
" ;;
        esac
    done
    case $private in *-----END*) ;; *) echo "an SSH host key is incomplete" >&2 && exit 1 ;; esac
    [ -e "$key" ] || continue
    umask 077
    echo "$private" >"$key"
    umask 022
    # Not by ssh-keygen, which refuses ed25519 in FIPS mode.
    [ "$root" ] || echo "$public" >"$key.pub"
done
for file in /etc/machine-id /var/lib/dbus/machine-id; do
    if [ -f "$file" ] && [ ! -L "$file" ]; then echo "$1" >"$file"; fi
done
echo "$2" >/proc/sys/kernel/hostname
echo "$2" >/etc/hostname
echo "127.0.0.1 localhost
127.0.1.1 $2
::1 localhost ip6-localhost ip6-loopback" >/etc/hosts
# A server reads its keys when it starts, or is told to.
if [ -r "$root/run/sshd.pid" ]; then read -r server <"$root/run/sshd.pid" && kill -HUP "$server"; fi
