# Waits until the system has started, at most $1 seconds, and says what it is up to: `up`, `slow` (it still starts), `down` (it is about
# to reboot or power off), `soon SECONDS` (it will, then).
set -u
left=$1

wait_more() {
    [ "$left" -gt 0 ] || { echo slow; exit 0; }
    sleep 1
    left=$((left - 1))
}

# Until this fails.
while_it_starts() {
    while "$@" >/dev/null 2>&1; do wait_more; done
}

# Asked again and again, because not every systemd can be waited for. One that reboots before it has started says that it still starts,
# or does not answer: then the connection will end.
systemd() {
    while :; do
        case $(systemctl is-system-running 2>/dev/null) in
        running | degraded | maintenance) break ;;
        stopping) echo down; exit 0 ;;
        *) wait_more ;;
        esac
    done
    at=$(sed -n 's/^USEC=\([0-9]\{1,\}\)$/\1/p' /run/systemd/shutdown/scheduled 2>/dev/null)
    if [ "$at" ]; then echo "soon $((at / 1000000 - $(date +%s)))"; exit 0; fi
}

if [ -d /run/systemd/system ]; then
    systemd
elif [ -d /run/openrc ]; then
    if [ -e /run/openrc/rc.stopping ]; then echo down; exit 0; fi
    while_it_starts [ -e /run/openrc/rc.starting ]
elif command -v pgrep >/dev/null; then
    # Of busybox, FreeBSD, sysvinit (Debian; Red Hat and Slackware): a script runs while they start.
    while_it_starts pgrep -f 'sh /etc/(rc|init\.d/rcS?|rc\.d/rc(\.[SM])?)( |$)'
fi
echo up
