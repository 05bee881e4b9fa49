#!/bin/sh
# Makes a disk of what is installed here, with the mark of a boot sector, and packs it; its digest goes into a file beside it.
#
#   prepare-disk.sh FILE MIB SKIP PACKING
set -eu
file=$1 mib=$2 skip=$3 packing=$4
raw=$file.raw
# Each one begins elsewhere, so that no two are the same.
find /usr/lib /usr/bin -xdev -type f -size +16k 2>/dev/null | sort | xargs cat 2>/dev/null |
    head -c $(((mib + skip * 16) * 1048576)) | tail -c $((mib * 1048576)) >"$raw"
printf '\353\143' | dd of="$raw" bs=1 conv=notrunc status=none
printf '\125\252' | dd of="$raw" bs=1 seek=510 conv=notrunc status=none
case $packing in
    zst) zstd -q -3 -c "$raw" ;;
    gz) gzip -6 -c "$raw" ;;
    xz) xz -1 -T0 -c "$raw" ;;
esac >"$file"
rm "$raw"
sha256sum "$file" | cut -d ' ' -f 1 >"$file.sha256"
