//! Parses `[profiles.NAME.layers]`: the layers between a command and the store of its profile.

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use cubbyhole::layers::{
    CacheOptions, DEFAULT_COMPRESSION_LEVEL, KeyFile, KeyProvider, KeyRing, Layers, Limits,
    Plaintext, RetryOptions, Timeouts, TooLong, TtlRule,
};
use cubbyhole::{NamespacePrefix, StoreUrl};
use toml::Spanned;
use toml::de::DeValue;

use super::super::store_url;
use super::reader::{Key, Reader, Table, Value};
use crate::args::parse::{parse_bytes, parse_duration, parse_prefix};
use crate::error::Failure;

const LAYERS: &str = "`scope`, `read_only`, `limit`, `ttl`, `ttl_by_prefix`, `cache`, `timeout`, `retry`, \
                      `compression` and `encryption`";

/// The layers of a profile.
#[derive(Debug, Clone, Default)]
pub(crate) struct LayerSettings {
    /// All layers but the encryption, whose keys are read when the store is opened.
    pub(crate) layers: Layers,
    pub(crate) encryption: Option<EncryptionSettings>,
}

impl LayerSettings {
    /// Returns the names of the layers in their order.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let mut names = self.layers.names();
        names.extend(self.encryption.as_ref().map(|_| "encryption"));
        names
    }
}

/// The layer `encryption`.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EncryptionSettings {
    pub(crate) keys: KeySource,
    /// The URL of the store of the tenants' keys. `None` if it is the same store.
    pub(crate) tenant_keys: Option<String>,
    pub(crate) plaintext: Plaintext,
}

impl fmt::Debug for EncryptionSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncryptionSettings")
            .field("keys", &self.keys)
            .field("tenant_keys", &self.tenant_keys.as_deref().map(StoreUrl::redact))
            .field("plaintext", &self.plaintext)
            .finish()
    }
}

/// The source of the key ring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KeySource {
    File(PathBuf),
    Environment(String),
}

impl KeySource {
    /// Reads the keys. An error names the layer and the key of the configuration file.
    pub(crate) fn read(&self) -> Result<Arc<dyn KeyProvider>, Failure> {
        let (key, read): (_, cubbyhole::Result<Arc<dyn KeyProvider>>) = match self {
            Self::File(path) => ("key_file", KeyFile::open(path).map(|file| Arc::new(file) as _)),
            Self::Environment(name) => {
                ("key_env", KeyRing::from_env(name).map(|ring| Arc::new(ring) as _))
            }
        };
        read.map_err(|error| {
            let message = format!("layer `encryption`, key `{key}`: {}", error.message());
            Failure::Usage(message)
        })
    }
}

impl Reader<'_> {
    pub(super) fn layers(
        &self,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Result<LayerSettings, Failure> {
        let mut settings = LayerSettings::default();
        for (key, value) in self.table(key, value, "[profiles.NAME.layers]")? {
            let layers = std::mem::take(&mut settings.layers);
            settings.layers = match key.get_ref().as_ref() {
                "scope" => layers.with_scope(self.prefix(key, value)?),
                "read_only" => layers.with_read_only(self.boolean(key, value)?),
                "limit" => layers.with_limits(self.limits(key, value)?),
                "ttl" => layers.with_ttl_rule(self.ttl_rule(key, value)?),
                "ttl_by_prefix" => self.ttl_by_prefix(layers, key, value)?,
                "cache" => match self.cache(key, value)? {
                    Some(options) => layers.with_cache(options),
                    None => layers,
                },
                "timeout" => layers.with_timeouts(self.timeouts(key, value)?),
                "retry" => match self.retry(key, value)? {
                    Some(options) => layers.with_retry(options),
                    None => layers,
                },
                "compression" => match self.compression(key, value)? {
                    Some(level) => layers.with_compression(level),
                    None => layers,
                },
                "encryption" => {
                    settings.encryption = Some(self.encryption(key, value)?);
                    layers
                }
                _ => {
                    let known = format!("the layers {LAYERS}");
                    return Err(self.unknown(key, &known));
                }
            };
        }
        Ok(settings)
    }

    fn limits(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Limits, Failure> {
        let mut limits = Limits::new();
        let (mut rate, mut burst) = (None, None);
        let form = "limit = { value_bytes = \"64KiB\", rate = 100, burst = 200, concurrency = 8 }";
        for (field, given) in self.table(key, value, form)? {
            match field.get_ref().as_ref() {
                "value_bytes" => limits = limits.with_value_bytes(self.bytes(field, given)?),
                "rate" => rate = Some(self.number(field, given)?),
                "burst" => burst = Some(self.number(field, given)?),
                "concurrency" => {
                    limits = limits.with_concurrency(self.number::<usize>(field, given)?);
                }
                _ => {
                    let known = "`value_bytes`, `rate`, `burst` and `concurrency`";
                    return Err(self.unknown(field, known));
                }
            }
        }
        limits = match (rate, burst) {
            (Some(rate), burst) => limits.with_rate(rate, burst),
            (None, Some(_)) => {
                return Err(self.wrong(key, value, "has a `burst` without a `rate`"));
            }
            (None, None) => limits,
        };
        self.checked(key, value, limits.check())?;
        Ok(limits)
    }

    fn ttl_rule(&self, key: &Key<'_>, value: &Value<'_>) -> Result<TtlRule, Failure> {
        let form = "ttl = { default = \"30d\", max = \"90d\", too_long = \"clamp\" }";
        let mut rule = TtlRule::new();
        for (field, given) in self.table(key, value, form)? {
            rule = self.ttl_field(rule, field, given)?;
        }
        self.checked(key, value, rule.check())?;
        Ok(rule)
    }

    fn ttl_field(
        &self,
        rule: TtlRule,
        field: &Key<'_>,
        given: &Value<'_>,
    ) -> Result<TtlRule, Failure> {
        Ok(match field.get_ref().as_ref() {
            "default" => rule.with_default(self.duration(field, given)?),
            "max" => rule.with_max(self.duration(field, given)?),
            "too_long" => rule.with_too_long(match self.string(field, given)? {
                "clamp" => TooLong::Clamp,
                "refuse" => TooLong::Refuse,
                _ => return Err(self.wrong(field, given, "must be \"clamp\" or \"refuse\"")),
            }),
            _ => return Err(self.unknown(field, "`default`, `max` and `too_long`")),
        })
    }

    fn ttl_by_prefix(
        &self,
        mut layers: Layers,
        key: &Key<'_>,
        value: &Value<'_>,
    ) -> Result<Layers, Failure> {
        let form = "must be an array of tables: write [[profiles.NAME.layers.ttl_by_prefix]]";
        let rules = value.get_ref().as_array().ok_or_else(|| self.wrong(key, value, form))?;
        for each in rules.iter() {
            let table = each.get_ref().as_table().ok_or_else(|| self.wrong(key, each, form))?;
            let (mut prefix, mut rule) = (None, TtlRule::new());
            for (field, given) in table {
                match field.get_ref().as_ref() {
                    "prefix" => prefix = Some(self.prefix(field, given)?),
                    "default" | "max" | "too_long" => {
                        rule = self.ttl_field(rule, field, given)?;
                    }
                    _ => {
                        let known = "`prefix`, `default`, `max` and `too_long`";
                        return Err(self.unknown(field, known));
                    }
                }
            }
            let prefix =
                prefix.ok_or_else(|| self.wrong(key, each, "has a rule without a `prefix`"))?;
            self.checked(key, each, rule.check())?;
            layers = layers.with_ttl_rule_for(prefix, rule);
        }
        Ok(layers)
    }

    fn cache(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Option<CacheOptions>, Failure> {
        let Some(table) = self.switch_or_table(
            key,
            value,
            "cache = true, or { bytes = \"64MiB\", max_stale = \"5s\" }",
        )?
        else {
            return Ok(None);
        };
        let mut options = CacheOptions::new();
        for (field, given) in table.into_iter().flatten() {
            options = match field.get_ref().as_ref() {
                "bytes" => options.with_bytes(self.bytes(field, given)? as u64),
                "max_stale" => options.with_max_stale(self.duration(field, given)?),
                _ => return Err(self.unknown(field, "`bytes` and `max_stale`")),
            };
        }
        self.checked(key, value, options.check())?;
        Ok(Some(options))
    }

    fn timeouts(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Timeouts, Failure> {
        let mut timeouts = Timeouts::new();
        let form = "timeout = { read = \"1s\", write = \"2s\", walk = \"30s\" }";
        for (field, given) in self.table(key, value, form)? {
            timeouts = match field.get_ref().as_ref() {
                "read" => timeouts.with_read(self.duration(field, given)?),
                "write" => timeouts.with_write(self.duration(field, given)?),
                "walk" => timeouts.with_walk(self.duration(field, given)?),
                _ => return Err(self.unknown(field, "`read`, `write` and `walk`")),
            };
        }
        Ok(timeouts)
    }

    fn retry(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Option<RetryOptions>, Failure> {
        let form = "retry = true, or { budget = 0.2, max_attempts = 10, max_backoff = \"1s\" }";
        let Some(table) = self.switch_or_table(key, value, form)? else { return Ok(None) };
        let mut options = RetryOptions::new();
        for (field, given) in table.into_iter().flatten() {
            options = match field.get_ref().as_ref() {
                "budget" => options.with_budget(self.share(field, given)?),
                "max_attempts" => options.with_max_attempts(self.number(field, given)?),
                "max_backoff" => options.with_max_backoff(self.duration(field, given)?),
                _ => return Err(self.unknown(field, "`budget`, `max_attempts` and `max_backoff`")),
            };
        }
        self.checked(key, value, options.check())?;
        Ok(Some(options))
    }

    fn compression(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Option<i32>, Failure> {
        let form = "compression = true, or { level = 3 }";
        let Some(table) = self.switch_or_table(key, value, form)? else { return Ok(None) };
        let mut level = DEFAULT_COMPRESSION_LEVEL;
        for (field, given) in table.into_iter().flatten() {
            match field.get_ref().as_ref() {
                "level" => level = self.number(field, given)?,
                _ => return Err(self.unknown(field, "`level`")),
            }
        }
        if !(1..=19).contains(&level) {
            return Err(self.wrong(key, value, "must have a `level` from 1 to 19"));
        }
        Ok(Some(level))
    }

    fn encryption(&self, key: &Key<'_>, value: &Value<'_>) -> Result<EncryptionSettings, Failure> {
        let (mut keys, mut tenant_keys, mut plaintext) = (None, None, Plaintext::Refuse);
        let form = "encryption = { key_file = \"keys\", tenant_keys = \"in-store\", plaintext = \"refuse\" }";
        for (field, given) in self.table(key, value, form)? {
            match field.get_ref().as_ref() {
                name @ ("key_file" | "key_env") => {
                    if keys.is_some() {
                        let message =
                            "names the keys twice: use only one of `key_file` and `key_env`";
                        return Err(self.wrong(key, field, message));
                    }
                    let text = self.string(field, given)?;
                    keys = Some(match name {
                        "key_file" => KeySource::File(self.path(field, given, text)?),
                        _ => KeySource::Environment(self.variable_name(field, given, text)?),
                    });
                }
                "tenant_keys" => {
                    let text = self.string(field, given)?;
                    if text != "in-store" {
                        let url = store_url::anchored(text, self.folder);
                        let url = url.map_err(|wrong| self.wrong(field, given, wrong))?;
                        if !url.contains(':') {
                            let message = "must be \"in-store\" or the URL of another store";
                            return Err(self.wrong(field, given, message));
                        }
                        tenant_keys = Some(url);
                    }
                }
                "plaintext" => {
                    plaintext = match self.string(field, given)? {
                        "refuse" => Plaintext::Refuse,
                        "accept" => Plaintext::Accept,
                        _ => {
                            let message = "must be \"refuse\" or \"accept\"";
                            return Err(self.wrong(field, given, message));
                        }
                    };
                }
                _ => {
                    let known = "`key_file`, `key_env`, `tenant_keys` and `plaintext`";
                    return Err(self.unknown(field, known));
                }
            }
        }
        let keys = keys.ok_or_else(|| {
            self.wrong(
                key,
                value,
                "needs `key_file` or `key_env`; `cubbyhole key generate FILE` makes a file",
            )
        })?;
        Ok(EncryptionSettings { keys, tenant_keys, plaintext })
    }

    /// Returns `None` for `false`, and the table if there is one.
    fn switch_or_table<'v, 't>(
        &self,
        key: &Key<'_>,
        value: &'v Value<'t>,
        form: &str,
    ) -> Result<Option<Option<&'v Table<'t>>>, Failure> {
        match value.get_ref() {
            DeValue::Boolean(on) => Ok(on.then_some(None)),
            DeValue::Table(table) => Ok(Some(Some(table))),
            _ => Err(self.wrong(key, value, &format!("must be written {form}"))),
        }
    }

    fn boolean(&self, key: &Key<'_>, value: &Value<'_>) -> Result<bool, Failure> {
        value.get_ref().as_bool().ok_or_else(|| self.wrong(key, value, "must be true or false"))
    }

    fn duration(&self, key: &Key<'_>, value: &Value<'_>) -> Result<Duration, Failure> {
        parse_duration(self.string(key, value)?).map_err(|_| {
            let message = "must be a duration greater than zero, such as \"500ms\", \"30s\", \"5m\" or \"30d\"";
            self.wrong(key, value, message)
        })
    }

    fn bytes(&self, key: &Key<'_>, value: &Value<'_>) -> Result<usize, Failure> {
        let text = match value.get_ref() {
            DeValue::Integer(number) => Cow::Owned(number.to_string()),
            _ => Cow::Borrowed(self.string(key, value)?),
        };
        parse_bytes(&text).map_err(|_| {
            let message = "must be a size greater than zero, such as 65536, \"64KiB\" or \"16MiB\"";
            self.wrong(key, value, message)
        })
    }

    fn number<N: std::str::FromStr>(&self, key: &Key<'_>, value: &Value<'_>) -> Result<N, Failure> {
        let number = value.get_ref().as_integer().map(|number| number.to_string());
        let number = number.and_then(|text| text.parse().ok());
        number.ok_or_else(|| {
            self.wrong(key, value, "must be a positive whole number without quotation marks")
        })
    }

    fn share(&self, key: &Key<'_>, value: &Value<'_>) -> Result<f64, Failure> {
        let text = match value.get_ref() {
            DeValue::Float(number) => Some(number.to_string()),
            DeValue::Integer(number) => Some(number.to_string()),
            _ => None,
        };
        let share = text.and_then(|text| text.parse().ok());
        share.ok_or_else(|| self.wrong(key, value, "must be a number from 0 to 1, such as 0.2"))
    }

    fn prefix(&self, key: &Key<'_>, value: &Value<'_>) -> Result<NamespacePrefix, Failure> {
        parse_prefix(self.string(key, value)?).map_err(|error| {
            self.wrong(key, value, &format!("must be a namespace, such as \"acme:app\": {error}"))
        })
    }

    /// Adds the line and the layer to an error of its options.
    fn checked(
        &self,
        key: &Key<'_>,
        value: &Value<'_>,
        checked: cubbyhole::Result<()>,
    ) -> Result<(), Failure> {
        checked.map_err(|error| self.wrong(key, value, &format!("is wrong: {}", error.message())))
    }

    /// Returns the error for a value. The message begins with the key.
    fn wrong<T>(&self, key: &Key<'_>, at: &Spanned<T>, message: &str) -> Failure {
        self.mistake(at.span().start, &format!("`{}` {message}", key.get_ref()))
    }
}

#[cfg(test)]
mod tests;
