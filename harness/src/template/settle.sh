# Run in a guest that is about to be frozen, as the last thing. What it knows of each init has a function of its own.
set -u
rm -rf "${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}"

# Waits until this fails, at most 50 s. What is still being started comes to its end. Not all of it may go well, and that is so in a
# booted guest, too.
while_it_starts() {
    left=50
    while "$@" >/dev/null 2>&1 && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
}

# systemd before 240 cannot be waited for.
systemd_starts() {
    case $(systemctl is-system-running) in initializing | starting) true ;; *) false ;; esac
}
systemd() {
    timeout 50 systemctl is-system-running --wait >/dev/null 2>&1
    while_it_starts systemd_starts
    # Its clock will jump: what is due once a day would all be due in the first moment of every fork. (Daemons of cron do not catch
    # up on more than some hours, so they are left alone everywhere.)
    systemctl stop '*.timer'
}

# It has such a file while it changes the runlevel.
openrc() {
    while_it_starts [ -e /run/openrc/rc.starting ]
}

# Of sysvinit and busybox, and of FreeBSD: a script runs while they start.
scripts() {
    if command -v pgrep >/dev/null; then while_it_starts pgrep -f 'sh /etc/(rc|init.d/rcS)( |$)'; fi
}

if [ -d /run/systemd/system ]; then
    systemd
elif [ -d /run/openrc ]; then
    openrc
else
    scripts
fi
sync
