//! Who a guest is.

/// Who a guest is.
#[derive(Clone, Copy, Debug)]
pub struct GuestIdentity<'a> {
    /// The keys that open it, as public lines: ECDSA, ed25519.
    pub login: [&'a str; 2],
    /// Its host keys in the same order, OpenSSH private key format.
    pub host_private: [&'a str; 2],
    /// The same as public lines.
    pub host_public: [&'a str; 2],
    /// What it is called (one label).
    pub hostname: &'a str,
}
