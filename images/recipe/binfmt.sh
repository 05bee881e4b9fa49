#!/bin/sh
# Tells the kernel how programs of another kind are run, for this build's name space alone. Runs as its root.
set -eu
[ -n "$NESTMATRIX_BINFMT" ] || exit 0
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
printf %s "$NESTMATRIX_BINFMT" >/proc/sys/fs/binfmt_misc/register
