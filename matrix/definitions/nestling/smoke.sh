#!/bin/sh
# A fresh installation works: everything an administrator would look at first.
set -u
. nestling/checks.sh
version=$NESTMATRIX_PACKAGE_VERSION

check "the installed version is $version" is "$(installed_version)" "$version"
check "the program is of that version" is "$(nestling --version)" "nestling $version"
check "the unit runs" systemctl is-active --quiet nestling.service
check "the unit runs after a boot, too" systemctl is-enabled --quiet nestling.service
check "it does not run as root" test "$(owner)" -ne 0
check "it answers, and numbers its answers" is "$(answer)" "1. Hello from nestling $version"
check "every answer has its own number" is "$(answer)" "2. Hello from nestling $version"

echo "greetin = typing mistake" >>/etc/nestling.conf
check "a mistake in its configuration stops it from starting" sh -c '! systemctl restart nestling.service 2>/dev/null'
