# Run in a guest that is about to be frozen, as the last thing.
set -u
rm -rf "${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}"
if [ -d /run/systemd/system ]; then
    # What is still being started comes to its end. Not all of it may go well, and that is so in a booted guest, too.
    timeout 50 systemctl is-system-running --wait >/dev/null 2>&1
    # Its clock will jump: what is due once a day would all be due in the first moment of every fork.
    systemctl stop '*.timer'
fi
sync
