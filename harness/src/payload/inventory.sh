# What is asked of a guest before and after an installation begins with this. $1 begins every line that is an answer: what
# packages are made of was written before anybody could know it. The input names packages, each by name, version and CPU.
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
root=${NESTMATRIX_ROOT:-/var/tmp/nestmatrix} mark=$1
started=$root/tmp/started
tab=$(printf '\t')

record() {
    printf '%s' "$mark"
    printf '\t%s' "$@"
    printf '\n'
}

cd "$root/artifacts" || exit
# What is newer was written by the installation.
[ -e "$started" ] || : >"$started" || exit
# A login may have begun a line.
printf '\n'
