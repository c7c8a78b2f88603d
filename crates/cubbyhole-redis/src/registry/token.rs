//! Registration tokens.

/// A token with which a namespace or a tenant accepts its registration.
pub(crate) struct RegistrationToken {
    /// The token, drawn by the index that lists the name.
    pub(crate) drawn: String,
    /// The instant at which it was requested, by the clock of the slot to register.
    pub(crate) issued: String,
}
