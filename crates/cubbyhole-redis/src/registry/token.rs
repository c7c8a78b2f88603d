//! The permission to register a name.

/// What a place needs to be registered: drawn by the index that lists it, for a question that the
/// place put at an instant of its own clock.
pub(crate) struct RegistrationToken {
    pub(crate) drawn: String,
    pub(crate) issued: String,
}
