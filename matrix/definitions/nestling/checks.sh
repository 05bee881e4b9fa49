# What the suites of nestling share; they read it with `. nestling/checks.sh`.

# check "what is expected" COMMAND...: says what it checks, and ends the suite if the command fails.
check() {
	printf '%s ... ' "$1"
	shift
	if "$@"; then
		echo ok
	else
		echo "FAILED: $*"
		systemctl --no-pager --full status nestling.service || true
		exit 1
	fi
}

# is ACTUAL EXPECTED: shows both where they differ.
is() {
	[ "$1" = "$2" ] || {
		echo "got '$1', expected '$2'"
		return 1
	}
}

# What the daemon says, asked by somebody else's program: bash opens the connection.
answer() { timeout 10 bash -c 'exec 3<>/dev/tcp/127.0.0.1/7117 && cat <&3' 2>&1; }

installed_version() { dpkg-query --show --showformat='${Version}' nestling; }
process_id() { systemctl show --property=MainPID --value nestling.service; }
owner() { awk '/^Uid:/ { print $2 }' "/proc/$(process_id)/status"; }
