# The image has no logind, which would listen to the power button.
for device in /sys/class/input/event*; do
    if [ "$(cat "$device/device/name")" = "Power Button" ]; then
        dd if="/dev/input/${device##*/}" of=/dev/null bs=24 count=1 2>/dev/null
        exec systemctl poweroff
    fi
done
