# Run once, early in the first boot of a cloud image, as root. Whatever of it cannot be done is left: the system boots anyway.
conf=/etc/ssh/sshd_config.d/00-nestmatrix.conf
mkdir -p /etc/ssh/sshd_config.d
printf 'PermitRootLogin prohibit-password\nUseDNS no\n' >$conf
# The harness polls the SSH port with connections that say nothing; servers since OpenSSH 9.8 penalize their address for it.
version=$(ssh -V 2>&1 | sed -n 's/^OpenSSH_\([0-9]*\)\.\([0-9]*\).*/\1 \2/p')
set -- $version
if [ "${1:-0}" -gt 9 ] || { [ "${1:-0}" = 9 ] && [ "${2:-0}" -ge 8 ]; }; then
    echo 'PerSourcePenalties no' >>$conf
fi
# Services that update the system on their own hold the package manager's lock while a package is installed.
# Not with `systemctl mask`, which reads all units again: that takes an emulated guest seconds. Those that are about to start are stopped.
if [ -d /run/systemd/system ]; then
    set -- apt-daily.timer apt-daily-upgrade.timer dnf-makecache.timer unattended-upgrades.service packagekit.service
    for unit; do ln -sf /dev/null "/etc/systemd/system/$unit"; done
    systemctl --no-block stop "$@" 2>/dev/null
fi
exit 0
