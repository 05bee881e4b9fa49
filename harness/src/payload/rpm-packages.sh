# Says what is installed, and of each package what proves its content.
rpm_format
rpm --query --all --nosignature --nodigest \
    --qf "$mark${tab}have$tab$fields${tab}installed\\n$mark${tab}proof$tab$fields$tab$identity\\n" || exit
