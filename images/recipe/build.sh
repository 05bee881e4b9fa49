#!/bin/sh
# Builds the root disk. Started by the store, in a process group of its own, never by hand.
#
#   build.sh RELEASE PACKAGES WORK
#
# RELEASE   Debian suite
# PACKAGES  comma-separated, on top of Debian's minimal base
# WORK      a folder every user may pass through; the tree grows in WORK/root; it holds
#             files.tar, customize.sh, pack.sh
#             apt.conf      settings of apt for the build
#             sources.list  where from; without it mmdebstrap chooses
#
# Standard input is a life line: it ends when the store's process ends, however it ends, and then everything here is
# killed. Standard output is the disk: the user name space we work in has no right to walk to the store, but may write what
# it was given open. It is locked until the last process of the build is gone.
set -eu
cd /
umask 022
exec 3<&0 </dev/null 9<&1 >&2
(read -r _ <&3 || :; kill -KILL 0) 9<&- &
life_line=$!
exec 3<&-

release=$1 packages=$2 work=$3
set --
[ ! -e "$work/sources.list" ] || set -- "$work/sources.list"
# The time that what is made on the way takes as its own: any, as long as it is always the same.
export TMPDIR="$work" SOURCE_DATE_EPOCH=1700000000

# Guests of other images may run meanwhile, with time limits.
renice -n 10 -p $$ >/dev/null 2>&1 || :

# dpkg waits until every file is on the disk: ten thousand times, for a tree that is removed when the image is made of it.
mmdebstrap --mode=unshare --format=directory --variant=minbase --include="$packages" \
    --aptopt="$work/apt.conf" --dpkgopt=force-unsafe-io \
    --essential-hook="tar-in $work/files.tar /" --customize-hook="$work/customize.sh" \
    "$release" "$work/root" "$@"
mmdebstrap --unshare-helper "$work/pack.sh" "$work/root"
kill -KILL $life_line
