# Says what this system is, one fact a line, read by facts.rs, which defines package_managers before. With few processes: guests may be
# emulated.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C
export PATH LC_ALL

say() {
    if [ -n "$2" ]; then printf '%s=%s\n' "$1" "$2"; fi
}
# The first line of what a program says.
first() {
    said=$("$@" 2>/dev/null </dev/null) || said=
    printf '%s' "${said%%
*}"
}
# Of a file of one line, which may have no end of line.
line_of() {
    line=
    if [ -r "$1" ]; then read -r line <"$1" 2>/dev/null; fi
}
has() {
    command -v "$1" >/dev/null 2>&1
}

for file in /etc/os-release /usr/lib/os-release /var/run/os-release; do
    [ -r "$file" ] || continue
    while read -r line || [ -n "$line" ]; do
        case $line in ID=* | VERSION_ID=* | PRETTY_NAME=*) say "os.${line%%=*}" "${line#*=}" ;; esac
    done <"$file"
    break
done

system=$(first uname -srm)
say uname "$system"
line_of /proc/1/comm
init=$line

# A system may have musl beside its own glibc, but none has it the other way round.
libc=$(first getconf GNU_LIBC_VERSION)
case $libc in
glibc*) ;;
*)
    libc=
    for loader in /lib/ld-musl-*.so.1; do
        [ -e "$loader" ] || continue
        said=$("$loader" 2>&1 </dev/null)
        version=${said#*Version }
        libc="musl ${version%%[!0-9.]*}"
    done
    if [ -z "$libc" ] && has ldd; then libc=$(first ldd --version); fi
    ;;
esac
say libc "$libc"

if [ -d /run/systemd/system ]; then
    say init.systemd "$(first systemctl --version)"
elif [ -d /run/openrc ] || [ -d /lib/rc/init.d/started ]; then
    say init.openrc "$(first openrc --version)"
else
    case $system:$(readlink /proc/1/exe 2>/dev/null) in
    FreeBSD*) say init.rc rc ;;
    *busybox*) say init.busybox "$(first busybox)" ;;
    *) say init.name "$init" ;;
    esac
fi

# Into variables: a program that hangs is not to hold our output open.
package_managers

if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    say cgroups v2
elif [ -e /sys/fs/cgroup/unified/cgroup.controllers ]; then
    say cgroups hybrid
elif [ -d /sys/fs/cgroup/memory ] || [ -d /sys/fs/cgroup/cpu ] || [ -d /sys/fs/cgroup/systemd ]; then
    say cgroups v1
else
    say cgroups none
fi

line_of /sys/fs/selinux/enforce
case $line in
1) say selinux enforcing ;;
0) say selinux permissive ;;
*) if [ -e /etc/selinux/config ]; then say selinux disabled; else say selinux absent; fi ;;
esac
line_of /sys/module/apparmor/parameters/enabled
say apparmor "${line:-N}"

# The last line's second word, in 1024 bytes.
said=$(df -Pk / 2>/dev/null </dev/null)
set -f
set -- ${said##*
}
say root "${2-}"
exit 0
