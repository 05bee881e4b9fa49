# Runs one script in the guest so that its end is seen at once and nothing of it survives a time-out.
#
#   guard run MARK SCRIPT [REBOOTS]   becomes that script of the payload, after leaving a watcher behind. REBOOTS: it may reboot its guest,
#                                     and has done so as often
#   guard watch MARK PID              the watcher; its input is the SSH channel's
#   guard sweep MARK                  kills what is left; fails if something still is
#   guard announced MARK              whether the script announced a reboot in its last run: it wrote to the file NESTMATRIX_MARK
#
# The script takes the place of the shell that sshd started, so that sshd itself reports its exit code or its signal as soon
# as that process ends, even if other processes still hold the streams open. Nothing here says how or when a script ended: what runs in
# the guest could say the same. Orders to kill come in on the channel's input: nothing has to be forked or connected for them, so
# they arrive in a guest that is at its limits too. sshd closes that input when the process is over, and the watcher ends.
#
# The family of a script is its process group, its session, and every process with its mark in the environment: this needs
# neither a service manager nor control groups, so it is the same in every guest. Out of its reach is who leaves the session and
# empties the environment, and who was started by somebody else (a service); they end with the guest.

root=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix}
verb=$1 mark=$2

# Process ids of the family of process $main, on one line. By grep, because a shell reads byte by byte.
family() {
    if [ ! -r /proc/self/stat ]; then family_by_ps; return; fi
    for file in $(
        # After the name, which may hold anything: state (not a zombie), parent, group, session.
        grep -lsE "\) [^ZX] [0-9]+ ($main [0-9]+|[0-9]+ $main) " /proc/[0-9]*/stat
        marked
    ); do
        pid=${file#/proc/} pid=${pid%/*}
        if [ "$pid" != "$$" ]; then echo "$pid"; fi
    done
}

# The files of those with the mark in the environment, whose variables end in NUL bytes. Not every grep of busybox sees what is
# behind one.
marked() {
    if printf 'a\0b' | grep -qs b; then
        grep -ls "NESTMATRIX_GUARD=$mark" /proc/[0-9]*/environ
        return
    fi
    for file in /proc/[0-9]*/environ; do
        if tr '\0' '\n' 2>/dev/null <"$file" | grep -qs "NESTMATRIX_GUARD=$mark"; then echo "$file"; fi
    done
}

# FreeBSD has no /proc, and a ps that shows environments. (`[D]`: the grep is not to find itself.)
family_by_ps() {
    ps -axeww -o pid= -o state= -o pgid= -o sid= -o command= |
        grep -E "^ *[0-9]+ +[^ZX ][^ ]* +($main +[0-9]+|[0-9]+ +$main) |NESTMATRIX_GUAR[D]=$mark" |
        while read -r pid rest; do if [ "$pid" != "$$" ]; then echo "$pid"; fi; done
}

# Kills the family; what is killed may have forked meanwhile, so it takes rounds.
sweep() {
    for round in 1 2 3 4 5 6 7 8 9 10; do
        found=$(family)
        if [ -z "$found" ]; then return 0; fi
        kill -KILL $found 2>/dev/null
    done
    # Killed is not yet gone.
    sleep 1
    found=$(family)
    [ -z "$found" ]
}

# The file by which a script announces that it reboots its guest, and leaves notes for its next run: on a disk that can be written to.
find_mark() {
    NESTMATRIX_MARK=
    for folder in /var/lib /root /opt /usr/local /home ""; do
        [ -d "$folder/" ] && [ -w "$folder/" ] || continue
        case $(df -P "$folder/" 2>/dev/null) in *tmpfs* | *ramfs*) continue ;; esac
        NESTMATRIX_MARK=$folder/nestmatrix-mark
        break
    done
}

# What is in that file; nothing where there is none.
noted() { { cksum <"$NESTMATRIX_MARK"; } 2>/dev/null; }

# Before a run: none are left for its first one, and what is there now announces nothing.
prepare_mark() {
    find_mark
    if [ -z "$NESTMATRIX_MARK" ]; then return; fi
    if [ "$NESTMATRIX_REBOOT" = 0 ]; then rm -f "$NESTMATRIX_MARK"; fi
    noted >"$NESTMATRIX_MARK-before"
    # What was sent is there after a reset, too, before which nobody writes anything to the disk.
    sync
}

case $verb in
run)
    script=$3
    # The channel's input is for the watcher alone.
    exec 3<&0 </dev/null
    # For a sweep without the watcher. On a full disk there is none to be had, and that is not the script's business.
    { echo "$$" >"$root/main"; } 2>/dev/null
    launch=
    if command -v setsid >/dev/null; then launch=setsid; fi
    # In a session of its own, so that a script that kills its own group does not kill it; and nobody's child, so that one
    # that waits for all its children does not wait for it.
    ($launch sh "$0" watch "$mark" "$$" <&3 >/dev/null 2>&1 3<&- &)
    exec 3<&-
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    NESTMATRIX_GUARD=$mark
    export PATH NESTMATRIX_GUARD
    if [ "${4-}" ]; then
        NESTMATRIX_REBOOT=$4
        prepare_mark
        export NESTMATRIX_REBOOT NESTMATRIX_MARK
    fi
    # Read into this very process, which becomes what the script becomes.
    . "$root/$script"
    # The suite's becomes its script: this one is not whole.
    if [ "$script" = start ]; then
        echo "nestmatrix: the payload is damaged" >&2
        exit 125
    fi
    ;;
watch)
    main=$3
    trap '' HUP INT QUIT TERM PIPE
    while read -r order; do
        case $order in
        TERM) kill -TERM $(family) 2>/dev/null ;;
        KILL)
            # At once, against those who fork faster than they can be listed; not if it would hit ourselves.
            if command -v setsid >/dev/null; then kill -KILL "-$main" 2>/dev/null; fi
            sweep
            ;;
        esac
    done
    ;;
announced)
    find_mark
    [ "$NESTMATRIX_MARK" ] && [ -e "$NESTMATRIX_MARK-before" ] || exit 3
    now=$(noted)
    [ "$now" ] && [ "$now" != "$(cat "$NESTMATRIX_MARK-before")" ] || exit 1
    exit 0
    ;;
sweep)
    if [ -r "$root/main" ]; then read -r main <"$root/main"; fi
    main=${main:-none}
    sweep
    ;;
esac
