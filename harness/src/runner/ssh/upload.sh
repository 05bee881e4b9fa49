set -eu; umask 077; mkdir -p "$1"; cd "$1"; new=.new-$2-$$; trap 'rm -rf "$new"' EXIT; mkdir "$new";
is_it() { sum=$(sha256sum <"$1") && test "${sum%% *}" = "$2"; };
if command -v timeout >/dev/null; then timeout 7200 cat >"$new/nestmatrix"; else cat >"$new/nestmatrix"; fi; is_it "$new/nestmatrix" "$2" || { echo it came damaged >&2; exit 1; };
chmod 700 "$new/nestmatrix"; sync "$new/nestmatrix" 2>/dev/null || sync;
if test -e "$2"; then if is_it "$2/nestmatrix" "$2"; then echo done; exit 0; fi; mv "$2" ".old-$2-$$"; rm -rf ".old-$2-$$"; fi;
mv "$new" "$2";
find . -maxdepth 1 -name '.*-*' -mtime +0 -exec rm -rf {} +;
ls -t | tail -n +5 | while read -r old; do if test "$(find "./$old" -maxdepth 0 -mtime +0)"; then rm -rf "./$old"; fi; done;
echo done
