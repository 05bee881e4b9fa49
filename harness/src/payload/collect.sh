# Sends files of this guest to standard output, or removes them. Needs a POSIX shell, `ls`, `cat`, `rm`, and no tar.
#
# What is sent consists of frames: the mark, one letter, text, a NUL byte. The bytes of a file follow its frame F and end at the next
# mark, so a file that changes while it is read does no harm.
#
#   F SIZE NUMBER PATH   a file, and its inode
#   E CODE               the file is over, and how `cat` ended
#   R PATH               this file was there and is removed
#   N TEXT               to be told
#   L TEXT               to be told: something is missing
#   O COUNT              nothing follows; so many frames came before this one
#
# A symbolic link that a pattern matches is followed. Below a folder, links to folders are not followed (they may be loops), and
# links to files only if $6 is `follow`.

verb=$1 mark=$2 most=$3 room=$4 count=$5 links=$6
LC_ALL=C
export LC_ALL
all=$room left=$count frames=0 depth=0 full=

frame() {
    frames=$((frames + 1))
    printf '%s%s\000' "$mark" "$1"
}

# Of what is only there to be removed, nothing is missed.
missed() {
    if [ "$verb" = send ]; then frame "L$1"; fi
}

# One more that is looked at; fails if there were enough.
another() {
    left=$((left - 1))
    if [ "$left" -ge 0 ]; then return 0; fi
    if [ -z "$full" ]; then frame "Lmore than $count files match: the rest was not fetched"; fi
    full=1
    return 1
}

# A file, or what is none.
leaf() {
    another || return 0
    if [ -f "$1" ]; then
        "$verb" "$1"
    elif [ -p "$1" ]; then
        missed "$1 was not fetched: it is a pipe"
    elif [ -c "$1" ] || [ -b "$1" ]; then
        missed "$1 was not fetched: it is a device"
    elif [ -e "$1" ]; then
        missed "$1 was not fetched: it is no file"
    else
        missed "$1 was not fetched: it is a symbolic link that leads nowhere"
    fi
}

remove() {
    # What a link leads to is emptied, for the suite may make the link again and nothing else.
    if [ -L "$1" ] && [ -f "$1" ]; then { : >"$1"; } 2>/dev/null || frame "L$1 leads to what cannot be emptied"; fi
    rm -f "$1"
    if [ -e "$1" ] || [ -L "$1" ]; then frame "L$1 cannot be removed"; else frame "R$1"; fi
}

send() {
    # Inode, mode, links, owner, group, size: POSIX lists them in this order. Names may be patterns.
    set -f
    set -- "$1" $(ls -lnidL "$1")
    set +f
    size=${7-}
    case $size in
    '' | *[!0-9]*)
        missed "$1 was not fetched: ls does not tell its size"
        return
        ;;
    esac
    # By their lengths first: not every shell counts beyond 32 bits.
    if [ "${#size}" -gt "${#most}" ] || [ "$size" -gt "$most" ]; then
        missed "$1 was not fetched: it has $size bytes, $most may be"
        return
    fi
    if [ "$size" -gt "$room" ]; then
        missed "$1 was not fetched: with its $size bytes it is more than $all bytes in all"
        return
    fi
    room=$((room - size))
    case $size:$1 in
    0:/proc/*)
        # Some of these never end.
        missed "$1 was not fetched: it is a file of the kernel, without a size"
        return
        ;;
    esac
    frame "F$size $2 $1"
    code=0
    # What seems empty may be a file of the kernel behind a link.
    if [ "$size" -gt 0 ]; then cat "$1" || code=$?; fi
    frame "E$code"
}

folder() {
    another || return 0
    if [ "$depth" -ge 40 ]; then
        missed "$1 was not fetched: it lies more than 40 folders deep"
        return
    fi
    if [ ! -r "$1" ] || [ ! -x "$1" ]; then
        missed "$1 was not fetched: it cannot be read"
        return
    fi
    depth=$((depth + 1))
    for path in "$1"/* "$1"/.[!.]* "$1"/..?*; do
        if [ -n "$full" ]; then break; fi
        if [ -L "$path" ] && [ "$links" = follow ] && [ -f "$path" ]; then
            leaf "$path"
        elif [ -L "$path" ]; then
            if another; then missed "$path was not fetched: it is a symbolic link below a folder"; fi
        elif [ -d "$path" ]; then
            folder "$path"
        elif [ -e "$path" ]; then
            leaf "$path"
        fi
    done
    depth=$((depth - 1))
}

match() {
    for found; do
        if [ -n "$full" ]; then break; fi
        if [ -d "$found" ]; then
            before=$frames
            folder "$found"
            if [ "$frames" = "$before" ] && [ "$verb" = send ]; then frame "N$found is an empty folder"; fi
        elif [ -e "$found" ] || [ -L "$found" ]; then
            leaf "$found"
        elif [ "$verb" = send ]; then
            frame "Nnothing matches $found"
        fi
    done
}
