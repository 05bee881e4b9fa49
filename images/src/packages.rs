//! The store's folder of packages and lists that guests fetched from repositories. Whoever fetches them fills it and bounds it.

use std::path::{Path, PathBuf};

/// That folder of the store in the folder `store`.
pub fn packages(store: &Path) -> PathBuf {
    store.join("packages")
}
