//! Parses a configuration file, key by key. Messages name the line and never quote a value, because
//! a value may be a misplaced password.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::store_url;
use super::layers::LayerSettings;
use super::{PasswordSource, Profile, is_name};
use crate::args::parse::parse_duration;
use crate::error::Failure;
use crate::output::shown_path;

const TOP_KEYS: &str = "`default_profile` and `[profiles.NAME]`";
const PROFILE_KEYS: &str =
    "`store`, `password_env`, `password_file`, `timeout` and `[profiles.NAME.layers]`";
const NO_PASSWORD_HERE: &str = "; the file cannot hold a password: name an environment variable with \
                                `password_env`, or a file with `password_file`";

pub(super) type Table<'t> = DeTable<'t>;
pub(super) type Key<'t> = Spanned<Cow<'t, str>>;
pub(super) type Value<'t> = Spanned<DeValue<'t>>;

/// The default profile and all profiles.
pub(super) type Contents = (Option<String>, BTreeMap<String, Profile>);

/// Parses the text of a file, and reports the line of an error.
pub(super) struct Reader<'a> {
    pub(super) path: &'a Path,
    pub(super) text: &'a str,
    /// The folder that relative paths refer to.
    pub(super) folder: &'a Path,
}

impl Reader<'_> {
    pub(super) fn document(&self) -> Result<Contents, Failure> {
        let document = DeTable::parse(self.text).map_err(|error| {
            // The parser's message says what was expected and quotes no value.
            let at = error.span().map_or(self.text.len(), |span| span.start);
            self.mistake(at, &format!("invalid TOML: {}", error.message()))
        })?;
        let mut default = None;
        let mut profiles = BTreeMap::new();
        for (key, value) in document.get_ref() {
            match key.get_ref().as_ref() {
                "default_profile" => default = Some((self.string(key, value)?, value)),
                "profiles" => {
                    for (name, profile) in self.table(key, value, "[profiles.NAME]")? {
                        let (name, profile) = self.profile(name, profile)?;
                        profiles.insert(name, profile);
                    }
                }
                _ => return Err(self.unknown(key, TOP_KEYS)),
            }
        }
        let Some((name, value)) = default else { return Ok((None, profiles)) };
        if !profiles.contains_key(name) {
            let names: Vec<&str> = profiles.keys().map(String::as_str).collect();
            let known = match names.as_slice() {
                [] => "there are none".to_owned(),
                names => format!("there are {}", names.join(", ")),
            };
            let message = format!("`default_profile` names no profile of this file; {known}");
            return Err(self.mistake(value.span().start, &message));
        }
        Ok((Some(name.to_owned()), profiles))
    }

    fn profile(
        &self,
        name: &Spanned<Cow<'_, str>>,
        value: &Value<'_>,
    ) -> Result<(String, Profile), Failure> {
        let text = name.get_ref().as_ref();
        if !is_name(text) {
            let message = "the name of a profile consists of letters, digits, `-`, `_` and \
                           `.`, and does not begin with `-`";
            return Err(self.mistake(name.span().start, message));
        }
        let mut store = None;
        let mut password = None;
        let mut timeout = None;
        let mut layers = LayerSettings::default();
        for (key, value) in self.table(name, value, &format!("[profiles.{text}]"))? {
            let start = value.span().start;
            match key.get_ref().as_ref() {
                "store" => store = Some((self.string(key, value)?, start)),
                field @ ("password_env" | "password_file") => {
                    if password.is_some() {
                        let message = "`password_env` and `password_file` both name the password: \
                                       use only one of them";
                        return Err(self.mistake(key.span().start, message));
                    }
                    let source = self.string(key, value)?;
                    let source = match field {
                        "password_env" => {
                            PasswordSource::Environment(self.variable_name(key, value, source)?)
                        }
                        _ => PasswordSource::File(self.path(key, value, source)?),
                    };
                    password = Some((source, start));
                }
                "timeout" => {
                    let duration = parse_duration(self.string(key, value)?).map_err(|_| {
                        let message = "`timeout` must be a duration greater than zero, such as \
                                       \"500ms\", \"30s\", \"5m\" or \"30d\"; months and years have no \
                                       fixed length";
                        self.mistake(start, message)
                    })?;
                    timeout = Some(duration);
                }
                "layers" => layers = self.layers(key, value)?,
                _ => return Err(self.unknown(key, PROFILE_KEYS)),
            }
        }
        let Some((store, start)) = store else {
            let message = format!("the profile `{text}` has no `store`: add the URL of its store");
            return Err(self.mistake(name.span().start, &message));
        };
        let wrong =
            |wrong| self.mistake(start, &format!("the URL of the profile `{text}` {wrong}"));
        let store = store_url::anchored(store, self.folder).map_err(wrong)?;
        if let Some((_, start)) = &password {
            // Checks the URL with a placeholder, before the real password is read.
            store_url::with_password(&store, "x").map_err(|wrong| {
                self.mistake(*start, &format!("the URL of the profile `{text}` {wrong}"))
            })?;
        }
        let password = password.map(|(source, _)| source);
        Ok((text.to_owned(), Profile { store, password, timeout, layers }))
    }

    pub(super) fn variable_name(
        &self,
        key: &Key<'_>,
        value: &Value<'_>,
        name: &str,
    ) -> Result<String, Failure> {
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !plain || name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            let message = format!(
                "`{}` must be the name of an environment variable: letters, digits and `_`. That \
                 variable holds the secret",
                key.get_ref()
            );
            return Err(self.mistake(value.span().start, &message));
        }
        Ok(name.to_owned())
    }

    pub(super) fn path(
        &self,
        key: &Key<'_>,
        value: &Value<'_>,
        path: &str,
    ) -> Result<PathBuf, Failure> {
        if path.is_empty() || path.contains('\0') {
            let message = format!("`{}` must be the path of a file", key.get_ref());
            return Err(self.mistake(value.span().start, &message));
        }
        Ok(store_url::anchored_path(path, self.folder))
    }

    pub(super) fn string<'v>(
        &self,
        key: &Spanned<Cow<'_, str>>,
        value: &'v Value<'_>,
    ) -> Result<&'v str, Failure> {
        value.get_ref().as_str().ok_or_else(|| {
            let message = format!("`{}` must be text in quotation marks", key.get_ref());
            self.mistake(value.span().start, &message)
        })
    }

    pub(super) fn table<'v, 't>(
        &self,
        key: &Spanned<Cow<'_, str>>,
        value: &'v Value<'t>,
        form: &str,
    ) -> Result<&'v Table<'t>, Failure> {
        value.get_ref().as_table().ok_or_else(|| {
            let message = format!("`{}` must be a table: write {form}", key.get_ref());
            self.mistake(value.span().start, &message)
        })
    }

    pub(super) fn unknown(&self, key: &Spanned<Cow<'_, str>>, known: &str) -> Failure {
        let name = key.get_ref().as_ref();
        // A quoted key may be anything.
        let shown = if is_name(name) { format!("`{name}`") } else { "this key".to_owned() };
        let mut message = format!("{shown} is unknown; expected {known}");
        if name == "password" {
            message.push_str(NO_PASSWORD_HERE);
        }
        self.mistake(key.span().start, &message)
    }

    /// Returns the error for a mistake at a byte of the text.
    pub(super) fn mistake(&self, at: usize, message: &str) -> Failure {
        let before = self.text.as_bytes().iter().take(at);
        let line = before.filter(|byte| **byte == b'\n').count() + 1;
        Failure::Usage(format!("{}, line {line}: {message}", shown_path(self.path)))
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Contents, Failure> {
        let folder = Path::new("/srv/config");
        Reader { path: Path::new("c.toml"), text, folder }.document()
    }

    #[test]
    fn relative_paths_of_a_profile_become_absolute() {
        let text = "default_profile = \"a.b\"\n[profiles.\"a.b\"]\nstore = \"redis://h\"\n\
                    password_file = \"../p\"\n[profiles.\"é\"]\nstore = \"redb:x\"\ntimeout = \"5m\"";
        let (default, profiles) = read(text).unwrap();
        assert_eq!(default.as_deref(), Some("a.b"));
        let expected = PasswordSource::File(PathBuf::from("/srv/config/../p"));
        assert_eq!(profiles["a.b"].password, Some(expected));
        assert_eq!(profiles["é"].store, "redb:/srv/config/x");
        assert_eq!(profiles["é"].timeout, Some(Duration::from_secs(300)));
        assert!(read("").unwrap().1.is_empty());
    }

    #[test]
    fn debug_output_hides_passwords() {
        let text = "[profiles.a]\nstore = \"redis://:s3cret@h\"\n[profiles.a.layers.encryption]\n\
                    key_env = \"K\"\ntenant_keys = \"postgres://a:s3cret@h/d\"";
        assert!(!format!("{:?}", read(text).unwrap()).contains("s3cret"));
    }

    /// Valid lines of a file, and common mistakes.
    fn line() -> impl Strategy<Value = String> {
        let key = prop::sample::select(vec![
            "store",
            "password_env",
            "password_file",
            "timeout",
            "password",
            "default_profile",
            "profiles",
            "profiles.a",
            "profiles.a.store",
            "\"s3cret key\"",
            "a.b",
            "",
            "[profiles.a]",
            "[profiles.a.layers]",
            "[profiles.a.layers.encryption]",
            "[profiles.a.layers.limit]",
            "[[profiles.a.layers.ttl_by_prefix]]",
            "scope",
            "ttl",
            "cache",
            "retry.budget",
            "compression",
            "value_bytes",
            "key_env",
            "key_file",
            "tenant_keys",
            "plaintext",
            "prefix",
            "max",
            "[[profiles]]",
            "[profiles]",
            "[profiles.\"s3cret key\"]",
            "[profiles.b",
        ]);
        let value = prop::sample::select(vec![
            "\"redb:a\"",
            "\"redis://h\"",
            "\"redis://:s3cret@h\"",
            "\"postgres://a@h/s3cret\"",
            "\"S3CRET\"",
            "\"s3cret!\"",
            "'s3cret'",
            "s3cret",
            "\"s3cret",
            "\"\"\"s3cret",
            "\"30s\"",
            "30",
            "true",
            "[\"s3cret\"]",
            "{ name = 1 }",
            "{ level = \"s3cret\" }",
            "\"s3cret:\"",
            "2026-01-01",
            "\"\\u0000\"",
            "\"a\"",
            "",
        ]);
        prop_oneof![
            1 => key.clone().prop_map(str::to_owned),
            4 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_parsed_or_refused_with_its_line_and_no_value(
            lines in prop::collection::vec(prop_oneof![4 => line(), 1 => "\\PC{0,9}"], 0..8),
        ) {
            let text = lines.join("\n");
            let Err(failure) = read(&text) else { return Ok(()) };
            let message = failure.message();
            let number = message.strip_prefix("c.toml, line ").and_then(|rest| rest.split_once(':'));
            let number: usize = number.unwrap_or_default().0.parse().unwrap();
            prop_assert!((1..=lines.len().max(1)).contains(&number), "{}", message);
            prop_assert!(!message.contains("s3cret"), "{}", message);
            prop_assert!(!message.contains(char::is_control), "{}", message);
        }
    }
}
