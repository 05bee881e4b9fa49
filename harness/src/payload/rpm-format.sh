# Sets what rpm is asked for: $fields, name, version and CPU; $identity, what proves the content. Old ones know no SHA-256.
rpm_format() {
    fields="%{NAME}$tab%|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}$tab%{ARCH}"
    identity='%{SIGMD5}.%{SHA1HEADER}'
    if rpm --querytags | grep -qx SHA256HEADER; then identity=$identity.%{SHA256HEADER}; fi
}
