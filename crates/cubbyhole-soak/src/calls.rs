//! The calls of each kind, with the checks of their replies.

use std::time::Duration;

use cubbyhole::{
    Batch, Bytes, Condition, Entry, EntryStoreExt, ErrorKind, ExecutionContext, Expiry, GetOptions,
    NamespacePrefix, PutOptions, Result, ScanOptions, Timestamp, Update, Version,
};

use crate::checks::{check_ascending, check_live};
use crate::load::{CallResult, Caller, any_length, now};
use crate::{CallKind, DataSet, EntryId, EntryState, WrongReply, value};

/// The TTLs of entries whose values contain no expiry. Calls may extend these TTLs.
const TTL_MILLIS: std::ops::Range<u64> = 50..5_000;
/// The delays after which calls are interrupted in flight: up to twice the duration of a call.
const SHORT_MICROS: std::ops::Range<u64> = 1..2_000;
/// The number of keys in a batch or a `get_many`.
const KEYS_PER_CALL: usize = 8;

impl Caller {
    /// Makes a call of `kind` and checks the reply.
    pub(crate) async fn make_call(&mut self, kind: CallKind, ctx: &ExecutionContext) -> CallResult {
        match kind {
            CallKind::Put | CallKind::PutWithTtl => self.put(kind, ctx).await,
            CallKind::PutIfAbsent | CallKind::PutIfVersion => self.put_if(kind, ctx).await,
            CallKind::WriteOwn => self.write_own(ctx).await,
            CallKind::ReadOwn => self.read_own(ctx).await,
            CallKind::DeleteOwn => self.delete_own(ctx).await,
            CallKind::Batch => self.batch(ctx).await,
            CallKind::Get => self.get(ctx).await,
            CallKind::GetEntry => self.get_entry(ctx).await,
            CallKind::GetMany => self.get_many(ctx).await,
            CallKind::List => self.list(ctx).await,
            CallKind::Scan => self.scan(ctx).await,
            CallKind::ListNamespaces => self.list_namespaces(ctx).await,
            CallKind::Touch => self.touch(ctx).await,
            CallKind::Take => self.take(ctx).await,
            CallKind::Delete => self.delete(ctx).await,
            CallKind::Update => self.update(ctx).await,
            CallKind::Erase => self.erase(ctx).await,
            CallKind::Usage => self.usage(ctx).await,
            CallKind::TooShort => self.too_short().await,
            CallKind::Cancelled => self.cancelled(ctx).await,
            CallKind::Dropped => self.dropped(ctx).await,
        }
    }

    fn ttl(&mut self) -> Duration {
        Duration::from_millis(self.random.u64(TTL_MILLIS))
    }

    fn short(&mut self) -> Duration {
        Duration::from_micros(self.random.u64(SHORT_MICROS))
    }

    fn any_entry(&mut self) -> EntryId {
        self.data_set.any_entry(&mut self.random)
    }

    /// A random entry whose value contains no expiry, so its TTL may be changed.
    fn any_lasting_entry(&mut self) -> EntryId {
        let mut id = self.any_entry();
        if self.data_set.is_short_lived(id) {
            id.key += 1;
        }
        id
    }

    fn check_entry(
        &self,
        id: EntryId,
        entry: &Entry<Bytes>,
        began: Timestamp,
    ) -> std::result::Result<u16, WrongReply> {
        check_live(entry.meta.expires_at, began)?;
        self.check(id, &entry.value, began)
    }

    async fn put(&mut self, kind: CallKind, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let (value, mut options) = self.any_value(id)?;
        if kind == CallKind::PutWithTtl && !self.data_set.is_short_lived(id) {
            options = PutOptions::new().with_ttl(self.ttl());
        }
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        Ok(self.store.put_with_options(ctx, ns, key, value, options).await?)
    }

    async fn put_if(&mut self, kind: CallKind, ctx: &ExecutionContext) -> CallResult {
        let id = self.data_set.contended_entry(&mut self.random);
        let id = if self.random.bool() { id } else { self.any_entry() };
        let (value, options) = self.any_value(id)?;
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let began = now();
        let read = self.store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        if let Some(entry) = &read {
            self.check_entry(id, entry, began)?;
        }
        let condition = match read {
            Some(entry) if kind == CallKind::PutIfVersion => {
                Condition::IfVersion(entry.meta.version)
            }
            _ => Condition::IfAbsent,
        };
        let put = self.store.put_entry(ctx, ns, key, value, options, condition).await;
        check_conflict(id, condition, put).map(|_| ())
    }

    /// Writes an entry that only this caller writes, so the caller knows which condition holds.
    async fn write_own(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.data_set.own_entry(self.number, &mut self.random);
        let serial = self.random.u16(..);
        let value = value::make(id, serial, None, any_length(&mut self.random));
        let expected =
            self.own_entries.insert(id, EntryState::Unknown).unwrap_or(EntryState::Absent);
        let matching = match expected {
            EntryState::Absent => Condition::IfAbsent,
            EntryState::Written(_, version) => Condition::IfVersion(version),
            EntryState::Unknown => Condition::Always,
        };
        let (condition, must_hold) = match self.random.u32(..4) {
            0 => (matching, true),
            1 if expected != EntryState::Unknown => (Condition::IfVersion(Version::draw()), false),
            _ => (Condition::Always, true),
        };
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let put = self.store.put_entry(ctx, ns, key, value, PutOptions::new(), condition).await;
        match put {
            Ok(version) if must_hold => {
                self.own_entries.insert(id, EntryState::Written(serial, version));
                Ok(())
            }
            Ok(version) => {
                let found = EntryState::Written(serial, version);
                Err(WrongReply::UnexpectedState { id, expected, found }.into())
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                self.own_entries.insert(id, expected);
                if must_hold {
                    Err(WrongReply::FalseConflict { id }.into())
                } else {
                    Err(error.into())
                }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn read_own(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.data_set.own_entry(self.number, &mut self.random);
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let began = now();
        let entry = self.store.get_entry(ctx, ns, key, GetOptions::new()).await?;
        let found = match entry {
            None => EntryState::Absent,
            Some(entry) => {
                EntryState::Written(self.check_entry(id, &entry, began)?, entry.meta.version)
            }
        };
        let expected = self.own_entries.get(&id).copied().unwrap_or(EntryState::Absent);
        Ok(expected.check(id, found)?)
    }

    async fn delete_own(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.data_set.own_entry(self.number, &mut self.random);
        let expected =
            self.own_entries.insert(id, EntryState::Unknown).unwrap_or(EntryState::Absent);
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let existed = self.store.delete_entry(ctx, ns, key, Condition::Always).await?;
        self.own_entries.insert(id, EntryState::Absent);
        if expected != EntryState::Unknown && existed != (expected != EntryState::Absent) {
            let found = if existed { EntryState::Unknown } else { EntryState::Absent };
            return Err(WrongReply::UnexpectedState { id, expected, found }.into());
        }
        Ok(())
    }

    async fn batch(&mut self, ctx: &ExecutionContext) -> CallResult {
        let first = self.any_entry();
        let mut batch = Batch::new();
        let step = DataSet::KEYS / KEYS_PER_CALL;
        for index in 0..KEYS_PER_CALL {
            let key = (usize::from(first.key) + index * step) % DataSet::KEYS;
            let id = EntryId { key: key as u16, ..first };
            let (value, options) = self.any_value(id)?;
            let condition = if index == 1 { Condition::IfAbsent } else { Condition::Always };
            let name = self.data_set.key(id);
            batch = if index == 0 {
                batch.delete(name)
            } else if index == 1 && self.random.bool() {
                batch.put_with(name, value, options, condition)
            } else {
                batch.put_with(name, value, options, Condition::Always)
            };
        }
        let operations = batch.len();
        let ns = self.data_set.namespace(first);
        let results = self.store.write(ctx, ns, batch).await?;
        let written = results.iter().filter(|result| result.version().is_some()).count();
        if results.len() != operations || written != operations - 1 {
            return Err(WrongReply::ResultCount { expected: operations, found: written }.into());
        }
        Ok(())
    }

    async fn get(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let began = now();
        if let Some(value) = self.store.get(ctx, ns, key).await? {
            self.check(id, &value, began)?;
        }
        Ok(())
    }

    /// A plain read, one that extends the TTL, or one that restarts an idle TTL.
    fn get_options(&mut self) -> GetOptions {
        match self.random.u32(..4) {
            0 => GetOptions::new().with_extended_ttl(self.ttl()),
            1 => GetOptions::new().refreshing(),
            _ => GetOptions::new(),
        }
    }

    async fn get_entry(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_lasting_entry();
        let options = self.get_options();
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let began = now();
        if let Some(entry) = self.store.get_entry(ctx, ns, key, options).await? {
            self.check_entry(id, &entry, began)?;
        }
        Ok(())
    }

    async fn get_many(&mut self, ctx: &ExecutionContext) -> CallResult {
        let first = self.any_entry();
        // Refreshes only what `touch` made idle: an extended TTL would outlive the expiry in a value.
        let options = GetOptions::new();
        let options = if self.random.bool() { options.refreshing() } else { options };
        let ids: Vec<EntryId> =
            (0..KEYS_PER_CALL).map(|_| EntryId { key: self.any_entry().key, ..first }).collect();
        let keys: Vec<&str> = ids.iter().map(|id| self.data_set.key(*id)).collect();
        let ns = self.data_set.namespace(first);
        let began = now();
        let answers = self.store.get_many(ctx, ns, &keys, options).await?;
        if answers.len() != ids.len() {
            return Err(
                WrongReply::ResultCount { expected: ids.len(), found: answers.len() }.into()
            );
        }
        for (id, answer) in ids.into_iter().zip(answers) {
            if let Some(entry) = answer? {
                self.check_entry(id, &entry, began)?;
            }
        }
        Ok(())
    }

    async fn list(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let ns = self.data_set.namespace(id);
        let keys = self.store.list(ctx, ns, Some("k:00")).await?;
        check_ascending(keys.iter().map(String::as_str))?;
        for key in keys {
            if !key.starts_with("k:00") || self.data_set.key_number(&key).is_none() {
                return Err(WrongReply::Listing { what: "not requested", name: key }.into());
            }
        }
        Ok(())
    }

    /// Scans all pages of a namespace. This caller's entry must be there with its expected state.
    async fn scan(&mut self, ctx: &ExecutionContext) -> CallResult {
        let own = self.data_set.own_entry(self.number, &mut self.random);
        let ns = self.data_set.namespace(own);
        let mut found = EntryState::Absent;
        let mut after: Option<String> = None;
        loop {
            let mut options = ScanOptions::new().with_limit(self.random.usize(10..60));
            if let Some(after) = &after {
                options = options.with_after(after);
            }
            let began = now();
            let page = self.store.scan(ctx, ns, options).await?;
            let names = page.items.iter().map(|item| item.key.as_str());
            check_ascending(after.as_deref().into_iter().chain(names))?;
            for item in page.items {
                let Some(key) = self.data_set.key_number(&item.key) else {
                    return Err(WrongReply::Listing { what: "unknown", name: item.key }.into());
                };
                let id = EntryId { key, ..own };
                let name = item.key.clone();
                let Some(entry) = item.into_entry() else {
                    return Err(WrongReply::Listing { what: "without its value", name }.into());
                };
                let entry = entry?;
                let serial = self.check_entry(id, &entry, began)?;
                if id == own {
                    found = EntryState::Written(serial, entry.meta.version);
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let expected = self.own_entries.get(&own).copied().unwrap_or(EntryState::Absent);
        Ok(expected.check(own, found)?)
    }

    /// Lists the namespaces of a tenant. A namespace with an entry of this caller must be listed,
    /// and no namespace of another tenant.
    async fn list_namespaces(&mut self, ctx: &ExecutionContext) -> CallResult {
        let own = self.data_set.own_entry(self.number, &mut self.random);
        let prefix = self.data_set.tenant_prefix(own.namespace);
        let listed = self.store.list_namespaces(ctx, &prefix).await?;
        check_ascending(listed.iter().map(|name| name.as_str()))?;
        if let Some(name) = listed.iter().find(|name| !prefix.matches(name)) {
            let name = name.as_str().to_owned();
            return Err(WrongReply::Listing { what: "of another tenant", name }.into());
        }
        let ns = self.data_set.namespace(own);
        if matches!(self.own_entries.get(&own), Some(EntryState::Written(..)))
            && !listed.contains(ns)
        {
            return Err(
                WrongReply::Listing { what: "missing", name: ns.as_str().to_owned() }.into()
            );
        }
        Ok(())
    }

    async fn touch(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_lasting_entry();
        let expiry = match self.random.u32(..4) {
            0 => Expiry::After(self.ttl()),
            1 => Expiry::Idle(self.ttl()),
            _ => Expiry::Never,
        };
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        self.store.touch(ctx, ns, key, expiry, Condition::Always).await?;
        Ok(())
    }

    async fn take(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        let began = now();
        if let Some(entry) = self.store.take(ctx, ns, key).await? {
            self.check_entry(id, &entry, began)?;
        }
        Ok(())
    }

    async fn delete(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let (ns, key) = (self.data_set.namespace(id), self.data_set.key(id));
        Ok(self.store.delete(ctx, ns, key).await?)
    }

    /// Updates a contended entry, so some calls have to retry.
    async fn update(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.data_set.contended_entry(&mut self.random);
        let (value, _) = self.any_value(id)?;
        let mut wrong = None;
        let data_set = &self.data_set;
        let decide = |entry: Option<Entry<Bytes>>| {
            if let Some(entry) = entry {
                let read = value::check(data_set, id, &entry.value, Timestamp::EPOCH);
                wrong = wrong.take().or(read.err());
            }
            Ok(Update::Put(value.clone()))
        };
        let (ns, key) = (data_set.namespace(id), data_set.key(id));
        self.store.update(ctx, ns, key, decide).await?;
        wrong.map_or(Ok(()), |wrong| Err(wrong.into()))
    }

    async fn erase(&mut self, ctx: &ExecutionContext) -> CallResult {
        let mut id = self.any_entry();
        while !self.data_set.is_erased(id.namespace) {
            id.namespace += 1;
        }
        let prefix = NamespacePrefix::from(self.data_set.namespace(id).clone());
        self.store.erase_all(ctx, &prefix).await?;
        Ok(())
    }

    async fn usage(&mut self, ctx: &ExecutionContext) -> CallResult {
        let id = self.any_entry();
        let usage = self.store.usage(ctx, &self.data_set.tenant_prefix(id.namespace)).await?;
        if usage.namespaces > DataSet::NAMESPACES as u64 {
            let found = usage.namespaces as usize;
            return Err(WrongReply::ResultCount { expected: DataSet::NAMESPACES, found }.into());
        }
        Ok(())
    }

    /// Makes a random call whose deadline passes in flight.
    async fn too_short(&mut self) -> CallResult {
        let ctx = ExecutionContext::new().with_timeout(self.short());
        self.any_call(&ctx).await
    }

    /// Makes a random call that is cancelled in flight.
    async fn cancelled(&mut self, ctx: &ExecutionContext) -> CallResult {
        let (wait, ctx) = (self.short(), ctx.child());
        let canceller = ctx.clone();
        let cancel = async {
            // Ends after the wait, or earlier if the context ends.
            drop(canceller.sleep(wait).await);
            canceller.cancel();
        };
        let (result, ()) = tokio::join!(self.any_call(&ctx), cancel);
        result
    }

    /// Makes a random call whose future is dropped in flight.
    async fn dropped(&mut self, ctx: &ExecutionContext) -> CallResult {
        let timeout = ExecutionContext::new().with_timeout(self.short());
        timeout.race(self.any_call(ctx)).await?
    }

    /// Makes a random call that does not write own entries, so its outcome may be unknown.
    async fn any_call(&mut self, ctx: &ExecutionContext) -> CallResult {
        match self.random.u32(..8) {
            0 => self.put(CallKind::PutWithTtl, ctx).await,
            1 => self.put(CallKind::Put, ctx).await,
            2 => self.batch_always(ctx).await,
            3 => self.scan(ctx).await,
            4 => self.take(ctx).await,
            5 => self.list_namespaces(ctx).await,
            6 => self.get_many(ctx).await,
            _ => self.get(ctx).await,
        }
    }

    /// A batch without conditions.
    async fn batch_always(&mut self, ctx: &ExecutionContext) -> CallResult {
        let first = self.any_entry();
        let (value, options) = self.any_value(first)?;
        let name = self.data_set.key(first);
        let batch = Batch::new().put_with(name, value, options, Condition::Always);
        self.store.write(ctx, self.data_set.namespace(first), batch).await?;
        Ok(())
    }
}

/// Checks that a conflict is real: the version in the error must violate the condition.
fn check_conflict(id: EntryId, condition: Condition, put: Result<Version>) -> CallResult<Version> {
    let error = match put {
        Ok(version) => return Ok(version),
        Err(error) => error,
    };
    if error.kind() == ErrorKind::Conflict && condition.check(error.current_version()).is_ok() {
        return Err(WrongReply::FalseConflict { id }.into());
    }
    Err(error.into())
}
