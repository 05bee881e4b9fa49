# Run over SSH by the user's login shell's `sh -s DIGEST`: says what this machine is and has, and then holds the connection.
say() {
    printf '%s %s\n' "$1" "$(printf '%s' "$2" | tr '\n\r' '  ' | cut -c 1-400)"
}
printf '\nnestmatrix-probe-begin\n'
say system "$(uname -s)"
say arch "$(uname -m)"
say user "$(id -un)"
root=${XDG_CACHE_HOME:-$HOME/.cache}/nestmatrix/runner
say root "$root"
if words=$( (umask 077 && mkdir -p "$root/programs" && echo >"$root/.probe.$$" && rm -f "$root/.probe.$$") 2>&1 ); then
    say writable yes
else
    say writable "no ${words##*: }"
fi
say free-kib "$(df -Pk "$root" 2>/dev/null | tail -n 1 | sed 's/.* \([0-9][0-9]*\)  *[0-9-]*%.*/\1/')"
program=$root/programs/$1/nestmatrix
if [ -x "$program" ] && sum=$(sha256sum <"$program") && [ "${sum%% *}" = "$1" ]; then
    touch "$root/programs/$1"
    say program yes
else
    say program no
fi
for tool in sha256sum qemu-img swtpm; do
    say "$tool" "$(command -v "$tool")"
done
qemu=$(command -v "qemu-system-$(uname -m)")
say qemu "$qemu"
[ -z "$qemu" ] || say qemu-version "$("$qemu" --version 2>/dev/null | head -n 1)"
if [ ! -e /dev/kvm ]; then
    say kvm missing
elif [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
    say kvm opens
else
    say kvm denied
fi
if grep -q '^flags.* hypervisor' /proc/cpuinfo 2>/dev/null; then
    say virtual yes
else
    say virtual no
fi
left=0
for run in "$root"/store/scratch/*/; do
    [ ! -d "$run" ] || left=$((left + 1))
done
say runs "$left"
printf 'nestmatrix-probe-end\n'
exec cat >/dev/null
