#!/bin/sh
# The life of the package: 1.0 is installed and configured, upgraded to 2.0, and purged.
set -u
. nestling/checks.sh
export DEBIAN_FRONTEND=noninteractive

check "1.0 installs" dpkg --install nestling/dist/nestling_1.0_*.deb
check "1.0 answers" is "$(answer)" "Hello from nestling 1.0"

sed -i 's/^greeting = .*/greeting = Good day/' /etc/nestling.conf
check "1.0 takes a new configuration" systemctl restart nestling.service
check "1.0 says what it was told to" is "$(answer)" "Good day from nestling 1.0"
before=$(process_id)

# 2.0 brings another configuration file; the administrator chose to keep his own.
check "2.0 installs over it" dpkg --force-confold --install nestling/dist/nestling_2.0_*.deb
check "the installed version is 2.0" is "$(installed_version)" 2.0
check "the daemon was restarted" test "$(process_id)" -ne "$before"
check "2.0 answers, with the configuration that was kept" is "$(answer)" "Good day from nestling 2.0"
check "the new configuration lies beside it" grep -q '^numbered = yes$' /etc/nestling.conf.dpkg-dist

check "it can be purged" dpkg --purge nestling
check "nothing answers any more" sh -c '! timeout 10 bash -c "exec 3<>/dev/tcp/127.0.0.1/7117" 2>/dev/null'
check "no file of it is left" test ! -e /etc/nestling.conf -a ! -e /usr/bin/nestling \
	-a ! -L /etc/systemd/system/multi-user.target.wants/nestling.service
