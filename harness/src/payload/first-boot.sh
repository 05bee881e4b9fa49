# Waits until cloud-init has done what the seed asks for, and shows what it says of that. Without cloud-init there is nothing to wait for.
command -v cloud-init >/dev/null 2>&1 || exit 0
until [ -e /run/cloud-init/result.json ]; do sleep 0.3; done
cat /run/cloud-init/result.json
