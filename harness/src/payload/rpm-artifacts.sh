# Says what the packages of the folder are.
rpm_format
for file in ./*.rpm; do
    [ -e "$file" ] || continue
    if said=$(rpm --query --nosignature --nodigest --qf "$fields$tab$identity" --package "$file" 2>/dev/null); then
        record file "$said" "$file"
    else
        record unread "$file"
    fi
done
