//! Options and results of [`Encrypted`](super::Encrypted).

use cubbyhole_core::{Error, Namespace, Position};

/// Whether values that are not encrypted are readable.
///
/// ```
/// use cubbyhole_layers::Plaintext;
///
/// assert_eq!(Plaintext::default(), Plaintext::Refuse);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Plaintext {
    /// Reading a value that is not encrypted returns `Corrupt`.
    #[default]
    Refuse,
    /// A value that is not encrypted is returned as it is.
    ///
    /// Use it only while you migrate a store with plain values: anyone who can write to the inner store
    /// can then replace an encrypted value by a plain one. Damage to the first 4 bytes of an encrypted
    /// value is not detected. A plain value that begins with the bytes `C8 63 62 65` is `Corrupt`; no
    /// text begins so.
    Accept,
}

/// The result of [`Encrypted::shred`](super::Encrypted::shred).
///
/// ```
/// use cubbyhole_layers::Shredded;
///
/// let first = Shredded { data_keys: 2, already: false };
/// assert_ne!(first, Shredded { data_keys: 0, already: true });
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shredded {
    /// The number of data keys that were destroyed. 0 if the tenant had none, or if the record of its
    /// keys was damaged.
    pub data_keys: usize,
    /// True if the tenant was shredded before.
    pub already: bool,
}

/// The result of [`Encrypted::rekey`](super::Encrypted::rekey). The default: there was nothing to do.
///
/// ```
/// use cubbyhole_layers::Rekeyed;
///
/// assert!(!Rekeyed::default().new_data_key);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rekeyed {
    /// True if the tenant got a new data key for new values.
    pub new_data_key: bool,
    /// The number of data keys that were wrapped again.
    pub rewrapped: usize,
    /// True if the tenant was shredded and has no keys.
    pub shredded: bool,
}

/// The result of [`Encrypted::reencrypt_step`](super::Encrypted::reencrypt_step).
///
/// ```
/// use cubbyhole_layers::ReencryptStep;
///
/// let step = ReencryptStep::default();
/// assert_eq!((step.checked, step.next), (0, None));
/// ```
#[derive(Debug, Clone, Default)]
pub struct ReencryptStep {
    /// The number of entries that were read.
    pub checked: u64,
    /// The number of entries that were encrypted again.
    pub rewritten: u64,
    /// The number of entries that another caller wrote or removed during the step. They can have an
    /// older data key: repeat the walk.
    pub changed: u64,
    /// The entries that could not be decrypted. They stay as they are.
    pub unreadable: Vec<UnreadableEntry>,
    /// Where the next step begins, or `None` at the end.
    pub next: Option<Position>,
}

/// An entry that could not be decrypted.
///
/// ```
/// use cubbyhole_core::{Error, Namespace};
/// use cubbyhole_layers::UnreadableEntry;
///
/// # fn main() -> cubbyhole_core::Result<()> {
/// let entry = UnreadableEntry {
///     namespace: Namespace::parse("acme:agent-7")?,
///     key: "plan".to_owned(),
///     error: Error::corrupt("the encrypted value is damaged"),
/// };
/// assert_eq!(entry.key, "plan");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct UnreadableEntry {
    /// The namespace of the entry.
    pub namespace: Namespace,
    /// The key of the entry.
    pub key: String,
    /// Why it could not be decrypted.
    pub error: Error,
}
