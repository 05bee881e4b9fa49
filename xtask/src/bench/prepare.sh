#!/bin/sh
# Downloads, digests and unpacks files side by side, with the tools that everybody has. What nestmatrix does with them, without knowing
# anything: both digests, and all of it on the disk in the end.
#
#   prepare.sh WORK URL...
set -eu
work=$1
shift
jobs=
for url; do
    (
        file=$work/${url##*/}
        curl --silent --fail --output "$file" "$url"
        sha256sum "$file" >"$file.digest"
        case $file in
            *.zst) zstd -q -d -c "$file" ;;
            *.gz) gzip -d -c "$file" ;;
            *.xz) xz -d -c "$file" ;;
        esac >"$file.disk"
        sha256sum "$file.disk" >"$file.disk.digest"
        sync "$file.disk"
        rm "$file"
    ) &
    jobs="$jobs $!"
done
for job in $jobs; do wait "$job"; done
