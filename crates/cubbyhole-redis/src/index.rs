//! The index of a namespace beside its values: walking its parts, and comparing keys in it with what
//! is there.

use cubbyhole_core::limits::check_key;
use cubbyhole_core::{Error, ExecutionContext, Namespace, OrphanAction, Result, Version};

use crate::call::Request;
use crate::error::Effect::{Read, Write};
use crate::error::Refusal;
use crate::keys::Place;
use crate::keyspace::Keyspace;
use crate::{replies, scripts};

/// How many keys are compared, or read of an index, before the server serves others.
pub(crate) const KEYS_AT_ONCE: usize = 500;

/// A part of the index of a namespace. Each has the keys that the others have, unless it was lost or
/// is of the expiring keys alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum IndexPart {
    Keys,
    Metas,
    Expiries,
}

/// How far a part of an index was read.
pub(crate) struct Walk {
    part: IndexPart,
    /// `None` at the end.
    cursor: Option<String>,
}

impl Walk {
    pub(crate) fn new(part: IndexPart) -> Self {
        Self { part, cursor: Some("0".to_owned()) }
    }
}

/// What a comparison does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    /// Changes nothing.
    Check,
    /// Repairs the index, and does that to orphaned values.
    Repair(OrphanAction),
}

impl Comparison {
    const fn word(self) -> &'static str {
        match self {
            Self::Check => "check",
            Self::Repair(OrphanAction::List) => "list",
            Self::Repair(OrphanAction::Register) => "register",
            Self::Repair(OrphanAction::Remove) => "remove",
        }
    }

    const fn needs_versions(self) -> bool {
        matches!(self, Self::Repair(OrphanAction::Register))
    }
}

/// How a key in the index compares with what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compared {
    InLine,
    /// The index has no readable meta data of a live entry for the value.
    Orphaned {
        bytes: u64,
        /// In milliseconds since 1970; 0 for never.
        expires: u64,
    },
    /// The index has a live entry that has no value, or a part of one.
    WithoutValue,
    /// The part of the expiring keys says something else than the meta data.
    OtherExpiry,
    /// The entry is live by its meta data, and the part of the keys does not list it. Its expiry may be
    /// lost as well.
    Unlisted,
    /// Another program wrote it.
    NoString,
}

impl Keyspace {
    /// The next keys of a part of an index, which may be none; `None` at the end. What is there from
    /// the first call to the last is among them, and what comes or goes meanwhile may be.
    pub(crate) async fn walk_on(
        &self,
        ctx: &ExecutionContext,
        place: &Place,
        walk: &mut Walk,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(cursor) = walk.cursor.take() else { return Ok(None) };
        let (command, name) = match walk.part {
            IndexPart::Keys => ("ZSCAN", place.keys()),
            IndexPart::Metas => ("HSCAN", place.metas()),
            IndexPart::Expiries => ("ZSCAN", place.expiries()),
        };
        let request = Request::command(place, Read, command)
            .arg(name)
            .arg(cursor)
            .arg("COUNT")
            .arg(KEYS_AT_ONCE);
        let answer = replies::array(self.caller.ask(ctx, &request).await?)?;
        let [next, found] = answer.try_into().map_err(|_| replies::unexpected())?;
        walk.cursor = Some(replies::text(next)?).filter(|next| next != "0");
        // Each with its score or its meta data.
        let keys = replies::members(found)?.into_iter().step_by(2);
        Ok(Some(keys.filter(|key| key != Place::MARKER.as_bytes()).collect()))
    }

    /// Compares keys of a namespace in its index with their values, all at one instant.
    ///
    /// # Errors
    /// What the call meets. `None` if the namespace must be registered before a value is: nothing was
    /// changed.
    pub(crate) async fn compare<K: AsRef<str>>(
        &self,
        ctx: &ExecutionContext,
        ns: &Namespace,
        keys: &[K],
        comparison: Comparison,
    ) -> Result<Option<Vec<Compared>>> {
        let place = self.place(ns);
        let mut names = vec![place.keys(), place.metas(), place.expiries()];
        names.extend(keys.iter().map(|key| place.value(key.as_ref())));
        let effect = if comparison == Comparison::Check { Read } else { Write };
        let mut request =
            Request::script(&place, effect, &scripts::RECONCILE, &names).arg(comparison.word());
        for key in keys {
            request = request.arg(key.as_ref());
        }
        if comparison.needs_versions() {
            for _ in keys {
                request = request.arg(&Version::draw().to_bytes()[..]);
            }
        }
        let answer = match self.caller.call(ctx, &request, &mut self.caller.repeat()).await? {
            Ok(answer) => replies::array(answer)?,
            Err(Refusal::Unregistered { .. }) => return Ok(None),
            Err(_) => return Err(replies::unexpected()),
        };
        let numbers: Vec<u64> = answer.iter().map(replies::integer).collect::<Result<_>>()?;
        let compared: Vec<Compared> =
            numbers.chunks_exact(3).map(Compared::read).collect::<Result<_>>()?;
        if compared.len() != keys.len() {
            return Err(replies::unexpected());
        }
        Ok(Some(compared))
    }
}

impl Compared {
    fn read(numbers: &[u64]) -> Result<Self> {
        match *numbers {
            [0, ..] => Ok(Self::InLine),
            [1, bytes, expires] => Ok(Self::Orphaned { bytes, expires }),
            [2, ..] => Ok(Self::WithoutValue),
            [3, ..] => Ok(Self::OtherExpiry),
            [4, ..] => Ok(Self::NoString),
            [5, ..] => Ok(Self::Unlisted),
            _ => Err(replies::unexpected()),
        }
    }
}

/// A member of an index as the key that it names.
pub(crate) fn key_of(member: Vec<u8>) -> Result<String> {
    let key = String::from_utf8(member).map_err(|error| no_key().with_source(error))?;
    check_key(&key).map_err(|error| no_key().with_source(error))?;
    Ok(key)
}

fn no_key() -> Error {
    Error::corrupt("a name in an index is no key: another program wrote it")
}
