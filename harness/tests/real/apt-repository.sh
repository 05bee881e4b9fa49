# Makes a signed repository for apt of the .deb files in the folder $1, whose lists are valid until $2; $3: more fields of its
# Release file. Its key is key.asc.
set -eu
cd "$1"
GNUPGHOME=$PWD/.gnupg
export GNUPGHOME
if [ ! -d .gnupg ]; then
    mkdir -m 700 .gnupg
    gpg --batch --quiet --passphrase '' --quick-gen-key 'nm repository <nm@example.org>' ed25519 sign never
    gpg --batch --quiet --armor --export >key.asc
fi
for file in *.deb; do
    dpkg-deb --field "$file"
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' "$file" "$(wc -c <"$file")" "$(sha256sum <"$file" | cut -d ' ' -f 1)"
done >Packages
{
    printf 'Origin: nm\nSuite: nm\nCodename: nm\nDate: %s\n' "$(date -u -R -d '-2 days')"
    printf 'Valid-Until: %s\n%sSHA256:\n' "$(date -u -R -d "$2")" "$3"
    printf ' %s %s Packages\n' "$(sha256sum <Packages | cut -d ' ' -f 1)" "$(wc -c <Packages)"
} >Release
gpg --batch --quiet --yes --clearsign --output InRelease Release
gpgconf --kill all
