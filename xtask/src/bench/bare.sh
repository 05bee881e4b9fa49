#!/bin/sh
# The least that boots a guest and runs `true` in it: bare.sh FOLDER IMAGE SIZE PORT QEMU ARGUMENTS...
set -eu
work=$1 image=$2 size=$3 port=$4
shift 4
cd "$work"
qemu-img create -q -f qcow2 -F qcow2 -b "$image" disk.qcow2 "$size"
ssh-keygen -q -t ed25519 -N '' -f login
ssh-keygen -q -t ecdsa -N '' -f ssh_host_ecdsa_key
ssh-keygen -q -t ed25519 -N '' -f ssh_host_ed25519_key
cp login.pub authorized_keys
echo bare >hostname
echo "[127.0.0.1]:$port $(cat ssh_host_ecdsa_key.pub)" >known_hosts

"$@" </dev/null >console.log 2>&1 &
qemu=$!
trap 'kill -KILL $qemu' EXIT
trap 'exit 1' HUP INT TERM
began=$(date +%s)
limit=3
until ssh -F none -i login -p "$port" -o ConnectTimeout=$limit -o BatchMode=yes -o IdentitiesOnly=yes \
	-o StrictHostKeyChecking=yes -o UserKnownHostsFile=known_hosts root@127.0.0.1 true 2>ssh.last; do
	cat ssh.last >>ssh.log
	# Before the guest has a network QEMU accepts and stays silent: that wait is cut short. After any other answer it must
	# not be: the limit covers the key exchange too (ssh_config(5)), and cutting a slow one off would flatter nestmatrix.
	grep -q -e 'banner exchange' -e refused ssh.last || limit=60
	kill -0 $qemu
	[ $(($(date +%s) - began)) -lt 300 ] || { echo "bare.sh: no answer within 300 s: see $work" >&2; exit 1; }
	sleep 0.2
done
