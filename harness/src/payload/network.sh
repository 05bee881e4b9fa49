# Tells this guest's resolver what the guest may reach: $1 is `isolated` or `open`; $2: where its /etc is. What cannot be done is left.
#
# In an isolated guest nobody answers at the address its network has for a name server, and looking up a name takes 10 seconds and
# more, also for the guest's own name where only its IPv4 address is written down. So questions are sent where the kernel refuses them at
# once. A guest may have been frozen under the other regime: what was in a file is kept in it, and comes back.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
etc=${2:-/etc}
mark='# nestmatrix: this guest is isolated; what was here follows'
set -f

# Its own name, with an address of each kind it has.
name=
if [ -r /proc/sys/kernel/hostname ]; then read -r name </proc/sys/kernel/hostname; else name=$(hostname); fi
four= six= end=
{ read -r line </proc/net/if_inet6; } 2>/dev/null || six=none
if [ -n "$name" ] && [ -f "$etc/hosts" ]; then
    while read -r address names || { [ -n "$address" ] && end=missing; }; do
        for word in ${names%%#*}; do
            [ "$word" = "$name" ] || continue
            case $address in '#'*) ;; *:*) six=known ;; *) four=known ;; esac
        done
    done <"$etc/hosts"
    if [ -z "$four" ] || [ -z "$six" ]; then
        {
            [ -z "$end" ] || echo
            [ -n "$four" ] || echo "127.0.1.1 $name"
            [ -n "$six" ] || echo "::1 $name"
        } 2>/dev/null >>"$etc/hosts"
    fi
fi

# A file that names a server elsewhere. One that only names a server in this guest is left: what that one asks is refused below.
far= isolated=
if [ -f "$etc/resolv.conf" ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        [ "$line" != "$mark" ] || isolated=1
        set -- "$1" $line
        case $2:$3 in nameserver:127.* | nameserver:::1) ;; nameserver:*) far=1 ;; esac
    done <"$etc/resolv.conf"
fi
text=
if [ "$1" = isolated ] && [ "$far" ] && [ -z "$isolated" ]; then
    # musl's resolver does not hear that it is refused: it is not to wait.
    text="$mark
nameserver 127.0.0.1
options timeout:0 attempts:1
"
    while IFS= read -r line || [ -n "$line" ]; do
        text="$text#|$line
"
    done <"$etc/resolv.conf"
elif [ "$1" = open ] && [ "$isolated" ]; then
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in '#|'*) text="$text${line#??}
" ;; esac
    done <"$etc/resolv.conf"
fi
[ -z "$text" ] || { printf %s "$text"; } 2>/dev/null >"$etc/resolv.conf"

# A resolver that was told over the network whom to ask goes on asking QEMU's name servers.
if [ "$1" = isolated ]; then verb=add; else verb=del; fi
if command -v ip >/dev/null 2>&1; then
    for server in 10.0.2.3 fec0::3; do ip route $verb unreachable $server 2>/dev/null; done
elif command -v route >/dev/null 2>&1; then
    route $verb -host 10.0.2.3 reject 2>/dev/null
fi
exit 0
