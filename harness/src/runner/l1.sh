# Run on a fresh L1 over SSH: KVM, the scratch disk, the bundle. The agent is started after it.
set -eu

# disk SERIAL: the block device of that serial number.
disk() {
    for found in /sys/class/block/*; do
        if [ -r "$found/serial" ] && [ "$(cat "$found/serial")" = "$1" ]; then
            echo "/dev/${found##*/}"
            return
        fi
    done
    echo "no disk with the serial number $1 is attached" >&2
    return 1
}
scratch=$(disk scratch)
bundle=$(disk bundle)

# Whichever fits the CPU; that one of them works is proved later.
modprobe -q kvm_amd || modprobe -q kvm_intel || :
# A CPU that waits for work of one guest by spinning takes it from the others.
[ ! -w /sys/module/kvm/parameters/halt_poll_ns ] || echo 0 >/sys/module/kvm/parameters/halt_poll_ns

# Without a journal: after a crash nothing of it is looked at again.
mkfs.ext4 -q -m 0 -O ^has_journal -E lazy_itable_init=1,nodiscard "$scratch"
mkdir -p /scratch
mount -o noatime,discard "$scratch" /scratch
mkdir /scratch/bundle
tar -x -f "$bundle" -C /scratch/bundle
