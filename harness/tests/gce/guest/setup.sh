# Makes the project's own image look like one of Google's: run once per boot as root, before the SSH server and the guest agent. Beside this
# file lies `tree`, with what such images have besides.
set -eu
here=$(dirname "$0")

# In place of what the image takes for its address.
ip -batch - <<END
address flush dev eth0
address add 169.254.169.15/24 dev eth0
route replace default via 169.254.169.2
END
read -r name </proc/sys/kernel/hostname
echo "127.0.0.1 localhost
127.0.1.1 $name
169.254.169.254 metadata.google.internal metadata" >/etc/hosts
# Nobody answers; without a server look-ups fail at once.
: >/etc/resolv.conf

if ! [ -e /usr/bin/sudo ]; then
    cp -r "$here/tree/etc" "$here/tree/usr" /
    mkdir /etc/sudoers.d
    chown -R root:root /etc/sudo* /etc/pam.d /usr/bin/sudo /usr/libexec/sudo
    chmod 440 /etc/sudoers
    chmod 4755 /usr/bin/sudo
fi

# As google-compute-engine's rules for udev name disks; the kernel's command line says what they are called.
mkdir -p /dev/disk/by-id
read -r words </proc/cmdline
for word in $words; do
    case $word in
    gce.disk=*:*)
        serial=${word#gce.disk=}
        for disk in /sys/block/vd*; do
            if [ "$(cat "$disk/serial")" = "${serial%%:*}" ]; then
                ln -sf "../../${disk##*/}" "/dev/disk/by-id/google-${serial#*:}"
            fi
        done
        ;;
    esac
done
modprobe -a button evdev
