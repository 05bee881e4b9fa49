//! Who a guest is.

/// Who a guest is.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// The key that opens it, as one public line.
    pub login: &'a str,
    /// Its host key, OpenSSH private key format.
    pub host_private: &'a str,
    /// The same as one public line.
    pub host_public: &'a str,
    /// What it is called (one label).
    pub hostname: &'a str,
}
