# Says what is installed, and of each package what proves its content.
database=/lib/apk/db/installed
if [ ! -e "$database" ]; then database=/usr/lib/apk/db/installed; fi
awk -v mark="$mark" -v OFS="$tab" '
    function done() {
        if ("P" in field) {
            state = field["f"] ~ /[fsx]/ ? "broken" : "installed"
            print mark, "have", field["P"], field["V"], field["A"], state
            print mark, "proof", field["P"], field["V"], field["A"], field["C"]
            # A version that was asked for by its file.
            if (pins[field["P"] "><" field["C"]]) print mark, "proof", field["P"], field["V"], field["A"], "pinned"
        }
        split("", field)
    }
    FILENAME ~ /world$/ { pins[$0] = 1; next }
    /^[PVACf]:/ { field[substr($0, 1, 1)] = substr($0, 3) }
    /^$/ { done() }
    END { done() }
' /etc/apk/world "$database" || exit
