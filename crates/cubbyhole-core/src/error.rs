//! [`Error`] and its kinds.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Version;

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The kind of an [`Error`]. It decides how a caller can react.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The call is wrong: an invalid name or option, or a size beyond a limit. Repeating it fails
    /// again.
    InvalidArgument,
    /// A condition did not hold. Read the entry again and decide again. See
    /// [`Error::current_version`].
    Conflict,
    /// The caller's context was cancelled.
    Cancelled,
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The backend is unreachable or does not exist. Repeating the call later may succeed.
    Unavailable,
    /// The database role, the file or the folder does not permit the operation.
    PermissionDenied,
    /// Out of space, memory or connections.
    ResourceExhausted,
    /// The caller exceeded a rate limit. See [`Error::retry_after`].
    RateLimited,
    /// A value could not be encoded or decoded.
    Codec,
    /// The stored data is damaged.
    Corrupt,
    /// The store does not support the operation, or this build cannot read the data.
    Unsupported,
    /// A bug. Please report it.
    Internal,
}

impl ErrorKind {
    /// Returns the kind as one lower-case word, as in the JSON errors of the command-line tool.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Conflict => "conflict",
            Self::Cancelled => "cancelled",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Unavailable => "unavailable",
            Self::PermissionDenied => "permission_denied",
            Self::ResourceExhausted => "resource_exhausted",
            Self::RateLimited => "rate_limited",
            Self::Codec => "codec",
            Self::Corrupt => "corrupt",
            Self::Unsupported => "unsupported",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of a store. It is one pointer in size and cheap to clone.
///
/// The message says what failed and what to do. Neither the message nor the `Debug` output contains
/// a value or a credential.
///
/// ```
/// use cubbyhole::{Error, ErrorKind};
///
/// let error = Error::unavailable("the server closed the connection").in_operation("put");
/// assert_eq!(error.kind(), ErrorKind::Unavailable);
/// assert!(error.is_retryable());
/// assert!(!error.may_have_been_applied());
/// assert_eq!(error.to_string(), "put: the server closed the connection");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    operation: Option<&'static str>,
    may_have_been_applied: bool,
    permanent: bool,
    conflict: Option<Conflict>,
    retry_after: Option<Duration>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

#[derive(Clone, Copy)]
struct Conflict {
    current: Option<Version>,
    batch_index: Option<usize>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $kind:ident;)*) => {
        $($(#[$doc])*
        #[must_use]
        pub fn $name(message: impl Into<Cow<'static, str>>) -> Self {
            Self::new(ErrorKind::$kind, message)
        })*
    };
}

impl Error {
    /// Creates an error of the given kind. The message says what to do and contains no value.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            may_have_been_applied: false,
            permanent: false,
            conflict: None,
            retry_after: None,
            source: None,
        }))
    }

    constructors! {
        /// Creates an [`ErrorKind::InvalidArgument`].
        invalid_argument => InvalidArgument;
        /// Creates an [`ErrorKind::Unavailable`].
        unavailable => Unavailable;
        /// Creates an [`ErrorKind::PermissionDenied`].
        permission_denied => PermissionDenied;
        /// Creates an [`ErrorKind::ResourceExhausted`].
        resource_exhausted => ResourceExhausted;
        /// Creates an [`ErrorKind::Codec`].
        codec => Codec;
        /// Creates an [`ErrorKind::Corrupt`].
        corrupt => Corrupt;
        /// Creates an [`ErrorKind::Unsupported`].
        unsupported => Unsupported;
        /// Creates an [`ErrorKind::Internal`].
        internal => Internal;
    }

    /// Creates an [`ErrorKind::Conflict`]. `current` is the current version of the entry, or `None` if
    /// it is absent.
    #[must_use]
    pub fn conflict(current: Option<Version>) -> Self {
        let message = match current {
            Some(version) => Cow::Owned(format!(
                "the condition does not hold: the entry is at version {version}; read it again"
            )),
            None => Cow::Borrowed("the condition does not hold: there is no such entry"),
        };
        let mut error = Self::new(ErrorKind::Conflict, message);
        error.inner_mut().conflict = Some(Conflict { current, batch_index: None });
        error
    }

    /// Creates an [`ErrorKind::RateLimited`]: a call after `retry_after` may succeed.
    #[must_use]
    pub fn rate_limited(
        message: impl Into<Cow<'static, str>>,
        retry_after: Option<Duration>,
    ) -> Self {
        let mut error = Self::new(ErrorKind::RateLimited, message);
        error.inner_mut().retry_after = retry_after;
        error
    }

    /// Creates the error of a cancelled context.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorKind::Cancelled, "the call was cancelled")
    }

    /// Creates the error of a context whose deadline has passed.
    #[must_use]
    pub fn deadline_exceeded() -> Self {
        Self::new(ErrorKind::DeadlineExceeded, "the deadline passed")
    }

    /// Creates the [`InvalidArgument`](ErrorKind::InvalidArgument) error of a closed store.
    #[must_use]
    pub fn closed() -> Self {
        Self::invalid_argument("the store is closed; open it again")
    }

    /// Sets the operation that failed, unless an inner layer has set it.
    #[must_use]
    pub fn in_operation(mut self, operation: &'static str) -> Self {
        if self.0.operation.is_none() {
            self.inner_mut().operation = Some(operation);
        }
        self
    }

    /// Sets the error that caused this one. It must not contain a value or a credential.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.inner_mut().source = Some(Arc::new(source));
        self
    }

    /// Replaces the message and keeps everything else: kind, operation, source and flags.
    ///
    /// A layer uses it when it knows more about the cause than the store below it.
    ///
    /// ```
    /// use cubbyhole::Error;
    ///
    /// let error = Error::deadline_exceeded().in_operation("put").with_unknown_outcome();
    /// let error = error.with_message("the write timeout of 2s passed");
    /// assert_eq!(
    ///     error.to_string(),
    ///     "put: the write timeout of 2s passed (the write may have been applied)",
    /// );
    /// ```
    #[must_use]
    pub fn with_message(mut self, message: impl Into<Cow<'static, str>>) -> Self {
        self.inner_mut().message = message.into();
        self
    }

    /// Marks the error as not retryable although its kind usually is.
    #[must_use]
    pub fn permanent(mut self) -> Self {
        self.inner_mut().permanent = true;
        self
    }

    /// Marks the outcome as unknown: the write may have been applied.
    #[must_use]
    pub fn with_unknown_outcome(mut self) -> Self {
        self.inner_mut().may_have_been_applied = true;
        self
    }

    /// Sets the index of the batch operation whose condition failed, counted from 0.
    #[must_use]
    pub fn at_batch_index(mut self, index: usize) -> Self {
        if let Some(conflict) = &mut self.inner_mut().conflict {
            conflict.batch_index = Some(index);
        }
        self
    }

    /// Returns the kind of the error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns true if repeating the same call later is safe and may succeed: the backend was
    /// unavailable or a rate limit was exceeded, and the call had no effect.
    ///
    /// Before you repeat a write of unknown outcome, read the entry: see
    /// [`may_have_been_applied`](Self::may_have_been_applied).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        let inner = &*self.0;
        matches!(inner.kind, ErrorKind::Unavailable | ErrorKind::RateLimited)
            && !inner.permanent
            && !inner.may_have_been_applied
    }

    /// Returns true if the store [marked the error as permanent](Self::permanent): neither repeating
    /// the call nor reading the entry resolves it.
    ///
    /// For example, a write of unknown outcome is permanent if it was applied and too few replicas
    /// confirmed it. A read then finds the entry, but does not prove that a failover keeps it.
    ///
    /// ```
    /// use cubbyhole::Error;
    ///
    /// let error = Error::unavailable("too few replicas confirmed the write");
    /// assert!(error.with_unknown_outcome().permanent().is_permanent());
    /// ```
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        self.0.permanent
    }

    /// Returns how long to wait before the call is repeated, if the layer or the server that
    /// [limited the rate](ErrorKind::RateLimited) knows it. `None` for every other kind.
    ///
    /// ```
    /// use std::time::Duration;
    /// use cubbyhole::Error;
    ///
    /// let error = Error::rate_limited("100 calls a second are allowed", Some(Duration::from_secs(1)));
    /// assert!(error.is_retryable());
    /// assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
    /// ```
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Returns true if the write may have taken effect although the call failed. If false, the call
    /// changed nothing.
    #[must_use]
    pub fn may_have_been_applied(&self) -> bool {
        self.0.may_have_been_applied
    }

    /// Returns the current version of the entry for a [`Conflict`](ErrorKind::Conflict), or `None` if
    /// the entry is absent. `None` for every other kind.
    #[must_use]
    pub fn current_version(&self) -> Option<Version> {
        self.0.conflict.and_then(|conflict| conflict.current)
    }

    /// Returns the index of the batch operation whose condition failed, counted from 0. `None` for
    /// errors other than a conflict in a batch.
    #[must_use]
    pub fn batch_index(&self) -> Option<usize> {
        self.0.conflict.and_then(|conflict| conflict.batch_index)
    }

    /// Returns the operation that failed, if known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// Returns the message without the operation.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    fn inner_mut(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }
}

/// Adds the name of the operation to the error of a result.
pub trait ResultExt: Sized {
    /// Calls [`Error::in_operation`] on an error.
    ///
    /// # Errors
    /// The same error with the operation set.
    fn in_operation(self, operation: &'static str) -> Self;
}

impl<T> ResultExt for Result<T> {
    fn in_operation(self, operation: &'static str) -> Self {
        self.map_err(|error| error.in_operation(operation))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operation) = self.0.operation {
            write!(f, "{operation}: ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(index) = self.batch_index() {
            write!(f, " (operation {index} of the batch)")?;
        }
        if self.0.may_have_been_applied {
            f.write_str(" (the write may have been applied)")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("message", &self.0.message)
            .field("may_have_been_applied", &self.0.may_have_been_applied)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| &**source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_operation_is_kept() {
        let error = Error::internal("x").in_operation("get").in_operation("update");
        assert_eq!(error.operation(), Some("get"));
    }

    #[test]
    fn new_message_keeps_operation_source_and_flags() {
        let cause = std::io::Error::other("cause");
        let error = Error::rate_limited("old", Some(Duration::from_secs(1)))
            .in_operation("put")
            .with_source(cause)
            .with_unknown_outcome()
            .with_message("new");
        assert_eq!((error.kind(), error.message()), (ErrorKind::RateLimited, "new"));
        assert_eq!(error.operation(), Some("put"));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(1)));
        assert!(error.may_have_been_applied());
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("cause"));
    }

    #[test]
    fn clone_keeps_the_source_chain() {
        let error = Error::unavailable("no").with_source(std::io::Error::other("cause")).clone();
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("cause"));
    }

    #[test]
    fn only_unavailable_without_effect_is_retryable() {
        assert!(Error::unavailable("x").is_retryable());
        assert!(!Error::unavailable("x").with_unknown_outcome().is_retryable());
        assert!(!Error::unavailable("x").permanent().is_retryable());
        for error in [
            Error::invalid_argument("x"),
            Error::conflict(None),
            Error::cancelled(),
            Error::deadline_exceeded(),
            Error::permission_denied("x"),
            Error::resource_exhausted("x"),
            Error::codec("x"),
            Error::corrupt("x"),
            Error::unsupported("x"),
            Error::internal("x"),
        ] {
            assert!(!error.is_retryable(), "{error:?}");
        }
    }
}
