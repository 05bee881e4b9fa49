# Run in a guest that is about to be frozen, as the last thing. What it knows of each init has a function of its own.
set -u
payload=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}
# A link if it had to lie elsewhere.
if [ -L "$payload" ]; then rm -rf "$(readlink "$payload")"; fi
rm -rf "$payload"

# Waits until this fails, at most 40 times. What is still being started comes to its end. Not all of it may go well, and that is so in a
# booted guest, too.
while_it_starts() {
    left=40
    while "$@" >/dev/null 2>&1 && [ "$left" -gt 0 ]; do
        sleep 1
        left=$((left - 1))
    done
}

# Asked again and again, because not every systemd can be waited for.
systemd_starts() {
    case $(systemctl is-system-running) in initializing | starting) true ;; *) false ;; esac
}
systemd() {
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
