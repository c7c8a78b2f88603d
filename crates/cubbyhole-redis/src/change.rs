//! The changes of a batch, and the requests that apply them.

use std::time::Duration;

use cubbyhole_core::{Condition, Expiry, Version};

use crate::cluster::Request;
use crate::effect::Effect::Write;
use crate::keys::HashTag;
use crate::registry::RegistrationToken;
use crate::scripts;

/// One operation of a batch.
pub(crate) struct Change<'a> {
    pub(crate) key: &'a str,
    pub(crate) condition: Condition,
    /// The entry to put; `None` deletes.
    pub(crate) put: Option<NewEntry<'a>>,
}

/// The entry that a put writes.
pub(crate) struct NewEntry<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) version: Version,
    pub(crate) expiry: Expiry,
}

impl Change<'_> {
    /// Returns whether it is a put without condition and expiry, which most writes are.
    pub(crate) fn is_plain_put(&self) -> bool {
        let never_expires = self.put.as_ref().is_some_and(|put| put.expiry == Expiry::Never);
        never_expires && self.condition == Condition::Always
    }

    /// Returns the request of a plain put.
    pub(crate) fn plain_put_request(&self, tag: &HashTag) -> Request {
        let names = [tag.keys(), tag.metas(), tag.expiries(), tag.value(self.key)];
        let value = self.put.as_ref().map_or(&[][..], |put| put.value);
        let version = self.put.as_ref().map_or([0; 16], |put| put.version.to_bytes());
        Request::script_of(tag, Write, &scripts::PUT, &names, value.len())
            .arg(self.key)
            .arg(&version[..])
            .arg(value)
    }
}

/// Returns the request of a batch. With a token, it also registers the namespace.
pub(crate) fn write_request(
    tag: &HashTag,
    changes: &[Change<'_>],
    token: Option<&RegistrationToken>,
) -> Request {
    let mut names = Vec::with_capacity(changes.len() + 4);
    names.extend([tag.keys(), tag.metas(), tag.expiries()]);
    names.extend(changes.iter().map(|change| tag.value(change.key)));
    names.extend(token.map(|_| tag.fence()));
    let (drawn, issued) = token.map_or(("", ""), |token| (&token.drawn, &token.issued));
    let mut request = Request::script(tag, Write, &scripts::WRITE, &names).arg(drawn).arg(issued);
    for change in changes {
        request = with_condition(request.arg(change.key), change.condition);
        request = match &change.put {
            Some(put) => request
                .arg(&put.version.to_bytes()[..])
                .arg(expiry_argument(put.expiry))
                .arg(put.value),
            None => request.arg("").arg("").arg(""),
        };
    }
    request
}

/// Adds a condition as an argument of a script.
pub(crate) fn with_condition(request: Request, condition: Condition) -> Request {
    match condition {
        Condition::Always => request.arg(""),
        Condition::IfAbsent => request.arg("absent"),
        Condition::IfPresent => request.arg("present"),
        Condition::IfVersion(version) => request.arg(&version.to_bytes()[..]),
    }
}

/// Formats an expiry for the scripts, which reject one past the year 9999 by the server's clock.
pub(crate) fn expiry_argument(expiry: Expiry) -> String {
    match expiry {
        Expiry::Never => String::new(),
        Expiry::After(ttl) => format!("+{}", millis(ttl)),
        Expiry::At(instant) => format!("@{}", instant.as_millis()),
        Expiry::Idle(ttl) => format!("~{}", millis(ttl)),
        Expiry::IdleUntil { ttl, expires_at } => {
            format!("~{}@{}", millis(ttl), expires_at.as_millis())
        }
    }
}

/// Returns a TTL in milliseconds, the unit of all stored times, rounded up.
fn millis(ttl: Duration) -> u128 {
    ttl.as_nanos().div_ceil(1_000_000)
}
