//! The URL of a store: parsed into the configuration of its backend, and redacted for display.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use crate::{Error, Result};

/// Replaces a secret in displayed text.
const HIDDEN: &str = "***";

/// Parts of option names whose values are secret.
const SECRET_OPTIONS: [&str; 6] = ["pass", "pwd", "secret", "token", "credential", "scram"];

/// The URL of a store, parsed and ready to open. [`open`](crate::open) lists the forms.
///
/// `Display` and `Debug` show the URL without its password.
///
/// ```
/// use cubbyhole::{BackendKind, ExecutionContext, OpenOptions, StoreUrl};
///
/// # #[tokio::main] async fn main() -> cubbyhole::Result<()> {
/// let url: StoreUrl = "memory:".parse()?;
/// assert_eq!(url.backend(), BackendKind::Memory);
/// println!("opening {url}");
/// let store = OpenOptions::new().open_url(&ExecutionContext::new(), &url).await?;
/// # drop(store);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct StoreUrl {
    redacted: String,
    pub(crate) config: BackendConfig,
}

/// The backend that a [`StoreUrl`] names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BackendKind {
    /// `memory:`
    Memory,
    /// `redb:`
    Embedded,
    /// `postgres://`
    Postgres,
    /// `redis://` and `redis+cluster://`
    Redis,
}

impl BackendKind {
    /// Returns the name that telemetry uses: `memory`, `embedded`, `postgres` or `redis`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Embedded => "embedded",
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }
}

impl fmt::Display for BackendKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The configuration that a URL holds for its backend.
#[derive(Debug, Clone)]
pub(crate) enum BackendConfig {
    Memory,
    #[cfg(feature = "embedded")]
    Embedded(cubbyhole_embedded::Config),
    #[cfg(feature = "postgres")]
    Postgres(Box<cubbyhole_postgres::Config>),
    #[cfg(feature = "redis")]
    Redis(Box<cubbyhole_redis::Config>),
}

impl StoreUrl {
    /// Parses a URL and its options. Nothing is opened and no server is contacted.
    ///
    /// A PostgreSQL URL is completed as libpq does it, from the environment and libpq's files.
    /// The path in a `redb:` URL is percent-decoded.
    ///
    /// # Errors
    /// `InvalidArgument` if the URL names no backend, holds a control character, or has a wrong
    /// option. It is also returned for a `redb:` path with escapes if only a file with the
    /// undecoded name exists. `Unsupported` if this build does not include the backend. No message
    /// quotes the URL.
    pub fn parse(url: &str) -> Result<Self> {
        let config = BackendConfig::parse(url)?;
        Ok(Self { redacted: Self::redact(url), config })
    }

    /// Returns the backend that the URL names.
    #[must_use]
    pub fn backend(&self) -> BackendKind {
        match &self.config {
            BackendConfig::Memory => BackendKind::Memory,
            #[cfg(feature = "embedded")]
            BackendConfig::Embedded(_) => BackendKind::Embedded,
            #[cfg(feature = "postgres")]
            BackendConfig::Postgres(_) => BackendKind::Postgres,
            #[cfg(feature = "redis")]
            BackendConfig::Redis(_) => BackendKind::Redis,
        }
    }

    /// Returns the path of an embedded file, and `None` for every other backend.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.config {
            #[cfg(feature = "embedded")]
            BackendConfig::Embedded(config) => Some(config.path()),
            _ => None,
        }
    }

    /// Whether the URL itself asks for a read-only store: `redb:PATH?read_only=true`.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        match &self.config {
            #[cfg(feature = "embedded")]
            BackendConfig::Embedded(config) => config.is_read_only(),
            _ => false,
        }
    }

    /// Returns the URL with `***` in place of its secrets.
    ///
    /// ```
    /// # #[cfg(feature = "postgres")] {
    /// use cubbyhole::StoreUrl;
    ///
    /// let url = StoreUrl::parse("postgres://app:s3cret@db.internal/state")?;
    /// assert_eq!(url.redacted(), "postgres://app:***@db.internal/state");
    /// # }
    /// # Ok::<(), cubbyhole::Error>(())
    /// ```
    #[must_use]
    pub fn redacted(&self) -> &str {
        &self.redacted
    }

    /// Returns any text that was given as a URL with `***` in place of its secrets. Use it for text
    /// that may not parse.
    ///
    /// Every part that is not certainly harmless is hidden, up to the whole text. The result can be
    /// shown or logged, but it is not a URL.
    ///
    /// ```
    /// use cubbyhole::StoreUrl;
    ///
    /// assert_eq!(StoreUrl::redact("redis://:s3cret@cache/0"), "redis://:***@cache/0");
    /// assert_eq!(StoreUrl::redact("redis://cache?s3cret"), "redis://cache?***");
    /// assert_eq!(StoreUrl::redact("app:s3cret@cache"), "***");
    /// ```
    #[must_use]
    pub fn redact(url: &str) -> String {
        let named = ["redb:", "memory:"].iter().any(|scheme| url.starts_with(scheme));
        let Some((scheme, rest)) = url.split_once("://") else {
            // Text without `://` may be a truncated URL, such as `user:password@host`.
            let harmless = named || !url.contains([':', '@']);
            return if harmless { url.to_owned() } else { HIDDEN.to_owned() };
        };
        if named && rest.starts_with('/') {
            return url.to_owned();
        }
        if !scheme.chars().all(|c| c.is_ascii_lowercase() || c == '+') {
            return HIDDEN.to_owned();
        }
        // Split at the last `@`: a password may contain `@` and `/` unencoded.
        let (user, rest) = match rest.rsplit_once('@') {
            // With a `?` before it, the `@` may be part of an option.
            Some((userinfo, _)) if userinfo.contains('?') => return format!("{scheme}://{HIDDEN}"),
            Some((userinfo, rest)) => (redact_user(userinfo), rest),
            None => (String::new(), rest),
        };
        let (address, query) = rest.split_once('?').map_or((rest, None), |(a, q)| (a, Some(q)));
        let hosts = address.split_once('/').map_or(address, |(hosts, _)| hosts);
        if !hosts.split(',').all(is_host) {
            return format!("{scheme}://{HIDDEN}");
        }
        let mut shown = format!("{scheme}://{user}{address}");
        if let Some(query) = query {
            let options: Vec<String> = query.split('&').map(redact_option).collect();
            shown.push('?');
            shown.push_str(&options.join("&"));
        }
        shown
    }
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        Self::parse(url)
    }
}

/// The redacted URL.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.redacted)
    }
}

/// The redacted URL.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("StoreUrl").field(&self.redacted).finish()
    }
}

/// Returns `user@` or `user:***@`.
fn redact_user(userinfo: &str) -> String {
    let (user, password) =
        userinfo.split_once(':').map_or((userinfo, None), |(user, rest)| (user, Some(rest)));
    let user = if user.contains(['/', '@', '#', '=']) { HIDDEN } else { user };
    match password {
        None => format!("{user}@"),
        Some("") => format!("{user}:@"),
        Some(_) => format!("{user}:{HIDDEN}@"),
    }
}

/// Whether the text is a host with an optional port. `user:password` of a URL without `@` is not.
fn is_host(text: &str) -> bool {
    let after = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(_, after)| after),
        None => Some(text.find(':').map_or("", |colon| &text[colon..])),
    };
    after.is_some_and(|port| {
        port.is_empty()
            || port.strip_prefix(':').is_some_and(|port| port.chars().all(|c| c.is_ascii_digit()))
    })
}

fn redact_option(option: &str) -> String {
    let Some((name, value)) = option.split_once('=') else {
        return if option.is_empty() { String::new() } else { HIDDEN.to_owned() };
    };
    // Any other name may be an encoded `password`, or the rest of a password.
    if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        return HIDDEN.to_owned();
    }
    let secret = SECRET_OPTIONS.iter().any(|part| name.contains(part));
    format!("{name}={}", if secret { HIDDEN } else { value })
}

impl BackendConfig {
    // No message quotes the URL, because it may hold a password.
    fn parse(url: &str) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the URL of the store contains a control character, such as a line end: remove it, or \
                 write it percent-encoded (%0A, %0D)",
            ));
        }
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        match scheme {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => Err(Error::invalid_argument("`memory:` takes nothing after the colon")),
            #[cfg(feature = "embedded")]
            "redb" => embedded(rest).map(Self::Embedded),
            #[cfg(not(feature = "embedded"))]
            "redb" => Err(built_without("embedded")),
            #[cfg(feature = "postgres")]
            "postgres" | "postgresql" => cubbyhole_postgres::Config::from_url(url)
                .map(|config| Self::Postgres(Box::new(config))),
            #[cfg(not(feature = "postgres"))]
            "postgres" | "postgresql" => Err(built_without("postgres")),
            #[cfg(feature = "redis")]
            "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => {
                cubbyhole_redis::Config::from_url(url).map(|config| Self::Redis(Box::new(config)))
            }
            #[cfg(not(feature = "redis"))]
            "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => Err(built_without("redis")),
            _ => Err(unknown()),
        }
    }
}

/// If only a file with the undecoded name exists, the caller most likely means that file. Opening
/// or creating the other one would look like lost data.
#[cfg(feature = "embedded")]
fn embedded(rest: &str) -> Result<cubbyhole_embedded::Config> {
    let config = cubbyhole_embedded::Config::from_url_path(rest)?;
    let literal = std::path::Path::new(rest.split_once('?').map_or(rest, |(path, _)| path));
    if literal != config.path() && literal.exists() && !config.path().exists() {
        return Err(Error::invalid_argument(
            "the path in the URL is percent-decoded, and no file has the decoded name, but one has \
             the name as written: write `%25` for each `%` in its name",
        ));
    }
    Ok(config)
}

#[cfg(not(all(feature = "embedded", feature = "postgres", feature = "redis")))]
fn built_without(feature: &'static str) -> Error {
    Error::unsupported(format!("built without `{feature}`"))
}

fn unknown() -> Error {
    Error::invalid_argument(
        "not the URL of a store: write `memory:`, `redb:PATH`, `postgres://…`, `redis://…` or \
         `redis+cluster://…`",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ErrorKind;

    #[test]
    fn malformed_url_is_invalid_argument() {
        for url in ["", "store.redb", "http://x", "memory:x", "REDB:x", ":"] {
            let error = StoreUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        }
    }

    #[test]
    fn control_character_is_refused_in_every_url() {
        let urls = [
            "memory:",
            #[cfg(feature = "embedded")]
            "redb:a.redb",
            #[cfg(feature = "postgres")]
            "postgres://u@h/db?schema=x",
            #[cfg(feature = "redis")]
            "redis://h:6379/0?prefix=x",
            #[cfg(feature = "redis")]
            "redis+cluster://h:1,h:2",
        ];
        for url in urls {
            assert!(StoreUrl::parse(url).is_ok(), "{url}");
            for control in ["\r", "\n", "\t", "\0", "\u{1b}", "\u{7f}", "\u{85}"] {
                for written in [format!("{url}{control}"), format!("{control}{url}")] {
                    let error = StoreUrl::parse(&written).unwrap_err();
                    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{written:?}");
                    assert!(error.message().contains("control character"), "{written:?}: {error}");
                }
            }
        }
    }

    #[cfg(feature = "embedded")]
    #[test]
    fn url_of_a_file_with_an_undecoded_name_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("redb:{}/{name}", folder.path().display());
        let path = |name: &str| StoreUrl::parse(&url(name)).unwrap().path().unwrap().to_owned();
        assert_eq!(path("a%20b"), folder.path().join("a b"));
        std::fs::write(folder.path().join("a%20b"), "").unwrap();
        let error = StoreUrl::parse(&url("a%20b")).unwrap_err();
        assert!(error.message().contains("%25"), "{error}");
        assert_eq!(path("a%2520b"), folder.path().join("a%20b"));
        std::fs::write(folder.path().join("a b"), "").unwrap();
        assert_eq!(path("a%20b"), folder.path().join("a b"));
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn wrong_option_is_named_without_the_password() {
        let error = StoreUrl::parse("postgres://u:s3cret@h/db?pool_size=many").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("pool_size"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_urls_name_a_server_or_a_cluster() {
        for url in ["redis://h", "rediss://:s3cret@h", "redis+cluster://h:1,h:2"] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert!(parsed.backend() == BackendKind::Redis, "{url}");
            assert!(!format!("{parsed:?}").contains("s3cret"));
        }
    }

    #[cfg(not(all(feature = "embedded", feature = "postgres", feature = "redis")))]
    #[test]
    fn backend_missing_from_the_build_is_unsupported() {
        let mut urls = Vec::new();
        if cfg!(not(feature = "embedded")) {
            urls.push("redb:s3cret");
        }
        if cfg!(not(feature = "postgres")) {
            urls.push("postgres://u:s3cret@h/db");
        }
        if cfg!(not(feature = "redis")) {
            urls.extend(["rediss://:s3cret@h", "redis+cluster://:s3cret@h:1,h:2"]);
        }
        for url in urls {
            let error = StoreUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().starts_with("built without `"), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"));
        }
    }
    #[test]
    fn url_without_secrets_is_shown_unchanged() {
        for url in [
            "",
            "memory:",
            "redb:state.redb",
            "redb:/srv/a@b:c.redb?durability=relaxed",
            "redb:///srv/a@b.redb",
            "state.redb",
            "postgres://app@db.internal:5432/state?sslmode=verify-full&sslrootcert=/ca.pem",
            "postgres://app@a:1,b:2/state",
            "postgres://%2Frun%2Fpostgresql/state",
            "postgres:///state?host=/run/postgresql&user=app",
            "redis://[::1]:6379/0",
            "redis+cluster://10.0.0.1:7000,10.0.0.2:7000?prefix=agents:",
            "redis://app:@cache",
        ] {
            assert_eq!(StoreUrl::redact(url), url);
        }
    }

    #[test]
    fn password_is_hidden_in_well_formed_and_malformed_urls() {
        for (url, shown) in [
            ("postgres://app:s3cret@db/state", "postgres://app:***@db/state"),
            ("postgres://app:s3cret@a:1,b:2/state", "postgres://app:***@a:1,b:2/state"),
            ("rediss://:s3cret@cache/0", "rediss://:***@cache/0"),
            ("postgres://app@db/state?password=s3cret", "postgres://app@db/state?password=***"),
            ("postgres://db/x?a=1&sslpassword=s3cret", "postgres://db/x?a=1&sslpassword=***"),
            ("postgres://db/x?scram_client_key=s3cret", "postgres://db/x?scram_client_key=***"),
            ("postgres://db/x?p%61ssword=s3cret&a=1", "postgres://db/x?***&a=1"),
            ("postgres://db/x?PASSWORD=s3cret", "postgres://db/x?***"),
            // Malformed URLs.
            ("postgres://app:s3/cr@et@db/state", "postgres://app:***@db/state"),
            ("postgres://app:s3?cret@db/state", "postgres://***"),
            ("postgres://app@db/state?password=s3@cret", "postgres://***"),
            ("postgres://app:s3cret", "postgres://***"),
            ("redis://:s3/cret", "redis://***"),
            ("redis://cache?s3cret", "redis://cache?***"),
            ("nope://u:s3cret@h/db", "nope://u:***@h/db"),
            ("app:s3cret@postgres://db", "***"),
            ("app:s3cret@db/state", "***"),
            ("postgres:s3cret", "***"),
            ("redb://app:s3cret@host", "redb://app:***@host"),
        ] {
            assert_eq!(StoreUrl::redact(url), shown, "{url}");
        }
    }

    #[cfg(feature = "postgres")]
    #[test]
    fn display_and_debug_are_redacted() {
        let url: StoreUrl = "postgres://app:s3cret@db/state".parse().unwrap();
        assert_eq!(url.to_string(), "postgres://app:***@db/state");
        assert_eq!(format!("{url:?}"), "StoreUrl(\"postgres://app:***@db/state\")");
        assert_eq!((url.backend(), url.path()), (BackendKind::Postgres, None));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Includes URLs whose password is not percent-encoded.
        #[test]
        fn text_before_the_last_at_sign_is_hidden(before in "[a-z:/?@&=#]{0,9}", after in "[:/?@&=#]{0,3}") {
            for scheme in ["postgres", "redis", "redb"] {
                let url = format!("{scheme}://app:{before}s3cret{after}@db/state");
                prop_assert!(!StoreUrl::redact(&url).contains("s3cret"), "{}", StoreUrl::redact(&url));
            }
        }
    }
}
