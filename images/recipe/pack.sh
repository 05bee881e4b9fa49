#!/bin/sh
# Makes the file system of the tree $1 on the disk that is open as descriptor 9.
set -eu
root=$1
# The kernel makes device nodes; what is here depends on who built the tree.
find "$root/dev" -mindepth 1 -delete

# The time of the build shows as little as can be: nothing is younger than the newest package.
newest=$(find "$root/usr/share/doc" -name 'changelog.Debian*.gz' -printf '%T@\n' | sort -n | tail -n 1)
newest=${newest%.*}
find "$root" -xdev -newermt "@$newest" -exec touch --no-dereference --date="@$newest" {} +

id=6e657374-6d61-4472-8978-000000000001
export SOURCE_DATE_EPOCH="$newest" E2FSPROGS_FAKE_TIME="$newest"
mke2fs -q -F -t ext4 -L root -U $id -E hash_seed=$id,root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1 -m 0 -d "$root" /proc/self/fd/9
