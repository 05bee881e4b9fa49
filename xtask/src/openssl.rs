//! Which OpenSSL nestmatrix is linked with: the system's, or one that is built with it.
//!
//! nestmatrix is linked statically. Debian, Ubuntu and Homebrew have OpenSSL's static archives beside its headers; Fedora, Arch
//! and openSUSE have only the headers.

use std::{
    env::{self, consts::ARCH},
    path::{Path, PathBuf},
};

use crate::command::output;

/// Whether the system's OpenSSL, or the one that `OPENSSL_DIR` names, can be linked statically.
pub(crate) fn is_there() -> bool {
    let headers = is_elsewhere()
        || Path::new("/usr/include/openssl/ssl.h").exists()
        || output(&["pkg-config", "--exists", "openssl"]).is_some();
    headers && Places::of_this_machine().folders().iter().any(|folder| has_archives(folder))
}

/// The build of OpenSSL's bindings honours this before it looks for the system's.
pub(crate) fn is_elsewhere() -> bool {
    env::var_os("OPENSSL_DIR").is_some()
}

/// cargo's arguments for a build of nestmatrix.
pub(crate) fn features(is_there: bool) -> &'static [&'static str] {
    if is_there { &[] } else { &["--features", "nestmatrix/vendored-openssl"] }
}

/// The source of the archives' path.
#[derive(Default)]
struct Places {
    /// `OPENSSL_LIB_DIR`.
    library: Option<PathBuf>,
    /// `OPENSSL_DIR`.
    whole: Option<PathBuf>,
    /// What pkg-config says.
    system: Option<PathBuf>,
}

impl Places {
    fn of_this_machine() -> Self {
        let variable = |name| env::var_os(name).map(PathBuf::from);
        let system = output(&["pkg-config", "--variable=libdir", "openssl"]);
        Self {
            library: variable("OPENSSL_LIB_DIR"),
            whole: variable("OPENSSL_DIR"),
            system: system.map(|line| line.trim().into()),
        }
    }

    /// Where the build looks, in its own order.
    fn folders(self) -> Vec<PathBuf> {
        match self {
            Self { library: Some(library), .. } => vec![library],
            Self { whole: Some(whole), .. } => vec![whole.join("lib64"), whole.join("lib")],
            Self { system: Some(system), .. } => vec![system],
            // Without pkg-config, which setup has yet to install.
            _ => vec![format!("/usr/lib/{ARCH}-linux-gnu").into(), "/usr/lib64".into(), "/usr/lib".into()],
        }
    }
}

fn has_archives(folder: &Path) -> bool {
    ["libssl.a", "libcrypto.a"].iter().all(|archive| folder.join(archive).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_looked_for_where_the_build_will_look() {
        let folders = |library: Option<&str>, whole: Option<&str>, system: Option<&str>| {
            let [library, whole, system] = [library, whole, system].map(|path| path.map(PathBuf::from));
            let folders = Places { library, whole, system }.folders();
            folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(folders(Some("/l"), Some("/w"), Some("/s")), ["/l"]);
        assert_eq!(folders(None, Some("/w"), Some("/s")), ["/w/lib64", "/w/lib"]);
        assert_eq!(folders(None, None, Some("/s")), ["/s"]);
        assert!(folders(None, None, None).contains(&"/usr/lib64".to_owned()));
    }

    #[test]
    fn only_an_openssl_that_cannot_be_linked_is_built_along() {
        assert!(features(true).is_empty());
        assert_eq!(features(false), ["--features", "nestmatrix/vendored-openssl"]);
    }
}
