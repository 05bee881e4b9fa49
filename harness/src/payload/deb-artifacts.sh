# Says what the packages of the folder are, and puts aside those for other systems.
ours=" all $(dpkg --print-architecture) $(dpkg --print-foreign-architectures | tr '\n' ' ') "
control=$root/tmp/control
for file in ./*.deb; do
    [ -e "$file" ] || continue
    rm -rf "$control"
    dpkg-deb --control "$file" "$control" >/dev/null 2>&1
    name='' version='' architecture='' identity=unpacked
    if [ -r "$control/control" ]; then
        while IFS= read -r line; do
            value=${line#*:}
            value=${value#"${value%%[! ]*}"} value=${value%"${value##*[! ]}"}
            case $line in
            [Pp]ackage:*) name=$value ;;
            [Vv]ersion:*) version=$value ;;
            [Aa]rchitecture:*) architecture=$value ;;
            esac
        done <"$control/control"
        # dpkg keeps this list as it came.
        if [ -e "$control/md5sums" ]; then identity=$(sha256sum <"$control/md5sums"); fi
    fi
    case $name/$architecture in
    */ | /*) record unread "$file" ;;
    *)
        case $ours in
        *" $architecture "*) record file "$name" "$version" "$architecture" "${identity%% *}" "$file" ;;
        *)
            record left "$name" "$version" "$architecture" "$file"
            mv "$file" "$file.left-out" || exit
            ;;
        esac
        ;;
    esac
done
rm -rf "$control"
