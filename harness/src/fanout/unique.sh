# Gives a guest of a template an identity of its own: machine id $1, name $2, and the SSH host key on standard input.
set -eu
# Where the server is: in a root of its own if the guest is one of a root file system.
root=
if [ -L /run/nestmatrix/sshd ]; then root=$(readlink /run/nestmatrix/sshd) root=${root%/init}; fi
# cloud-init names the file after the kind of key; a server goes by the content.
key=$root/etc/ssh/ssh_host_ecdsa_key
[ -e "$key" ] || key=$root/etc/ssh/ssh_host_ed25519_key
umask 077
cat >"$key"
umask 022
[ "$root" ] || ssh-keygen -y -f "$key" >"$key.pub"
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
