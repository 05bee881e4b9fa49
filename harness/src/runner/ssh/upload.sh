set -eu; umask 077; mkdir -p "$1"; cd "$1"; new=.new-$2-$$; trap 'rm -rf "$new"' EXIT; mkdir "$new";
is_it() { sum=$(sha256sum <"$1") && test "${sum%% *}" = "$2"; };
cat >"$new/nestmatrix"; is_it "$new/nestmatrix" "$2" || { echo it came damaged >&2; exit 1; };
chmod 700 "$new/nestmatrix"; sync "$new/nestmatrix" 2>/dev/null || sync;
if test -e "$2"; then if is_it "$2/nestmatrix" "$2"; then echo done; exit 0; fi; mv "$2" ".old-$2-$$"; rm -rf ".old-$2-$$"; fi;
mv "$new" "$2";
ls -t | tail -n +5 | while read -r old; do if test "$(find "./$old" -maxdepth 0 -mtime +0)"; then rm -rf "./$old"; fi; done;
echo done
