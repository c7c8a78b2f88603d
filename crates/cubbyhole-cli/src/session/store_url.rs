//! Changes the URL of a profile: inserts a password and makes relative paths absolute.
//!
//! `cubbyhole::StoreUrl` parses and redacts URLs.

use std::path::{Path, PathBuf};

use cubbyhole::embedded;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The schemes of servers, which take a user and a password.
const SERVERS: [&str; 6] =
    ["postgres", "postgresql", "redis", "rediss", "redis+cluster", "rediss+cluster"];

/// URL options that name a file.
const FILE_OPTIONS: [&str; 9] = [
    "sslrootcert",
    "sslcert",
    "sslkey",
    "sslcrl",
    "passfile",
    "servicefile",
    "tls_ca",
    "tls_cert",
    "tls_key",
];

/// Characters to percent-encode in the path of an option, which stays legible.
const NOT_IN_PATH: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Whether the URL contains a password.
pub(crate) fn has_password(url: &str) -> bool {
    let Some((address, query)) = server_parts(url) else { return false };
    let userinfo = address.rsplit_once('@').map(|(userinfo, _)| userinfo);
    let in_address = userinfo
        .and_then(|userinfo| userinfo.split_once(':'))
        .is_some_and(|(_, password)| !password.is_empty());
    in_address || options(query).any(|(name, _)| name == "password")
}

/// Inserts the percent-encoded password into the URL of a server.
///
/// # Errors
/// Returns the reason, in words that follow "the URL". The URL is not quoted.
pub(crate) fn with_password(url: &str, password: &str) -> Result<String, &'static str> {
    let (scheme, _) = url.split_once("://").unwrap_or((url, ""));
    let Some((address, query)) = server_parts(url) else {
        return Err("names no server, and only a server takes a password");
    };
    if has_password(url) {
        return Err("already contains a password: remove one of the two");
    }
    let (userinfo, hosts) = address.rsplit_once('@').unwrap_or(("", address));
    let user = userinfo.strip_suffix(':').unwrap_or(userinfo);
    let named = !user.is_empty() || options(query).any(|(name, _)| name == "user");
    if !named && scheme.starts_with("postgres") {
        return Err("names no user for the password: write `postgres://USER@HOST/DATABASE`");
    }
    let password = utf8_percent_encode(password, NON_ALPHANUMERIC);
    Ok(format!("{scheme}://{user}:{password}@{hosts}{query}"))
}

/// Makes the relative paths of a URL absolute: the file of an embedded store and the files of
/// options. Relative paths start at `folder`, and `~/` is the home folder.
///
/// # Errors
/// Why a path cannot be written in a URL, in words that follow "the URL".
pub(crate) fn anchored(url: &str, folder: &Path) -> Result<String, &'static str> {
    if url.contains(char::is_control) {
        return Err("contains a control character, such as a line end: remove it, or write it \
                    percent-encoded (%0A, %0D)");
    }
    if let Some(text) = url.strip_prefix("redb:") {
        let (text, query) = cut_query(text);
        let (text, folder) = match text.strip_prefix("~/").zip(etcetera::home_dir().ok()) {
            Some((text, home)) => (text, home),
            None => (text, folder.to_owned()),
        };
        // An error in the path is reported when the store is opened.
        let Ok(config) = embedded::Config::from_url_path(text) else { return Ok(url.to_owned()) };
        let (decoded, literal) = (folder.join(config.path()), folder.join(text));
        if literal != decoded && literal.exists() && !decoded.exists() {
            return Err(
                "is percent-decoded, and no file has the decoded name, but one has the name \
                        as written: write `%25` for each `%` in its name",
            );
        }
        let anchored = embedded::Config::new(decoded).to_url();
        let anchored = anchored.map_err(|_| "names a path that cannot be written in a URL")?;
        return Ok(format!("{anchored}{query}"));
    }
    let (address, query) = cut_query(url);
    let mut anchored = address.to_owned();
    for (index, option) in
        query.strip_prefix('?').into_iter().flat_map(|q| q.split('&')).enumerate()
    {
        anchored.push(if index == 0 { '?' } else { '&' });
        // `sslrootcert=system` names the platform's certificates, not a file.
        let file = option.split_once('=').filter(|(name, value)| {
            FILE_OPTIONS.contains(name) && (*name, *value) != ("sslrootcert", "system")
        });
        let Some((name, value)) = file else {
            anchored.push_str(option);
            continue;
        };
        let value = percent_decode_str(value)
            .decode_utf8()
            .map_err(|_| "has an option that is not UTF-8")?;
        let path = anchored_text(&value, folder)?;
        anchored.push_str(&format!("{name}={}", utf8_percent_encode(&path, NOT_IN_PATH)));
    }
    Ok(anchored)
}

fn anchored_text(path: &str, folder: &Path) -> Result<String, &'static str> {
    let anchored = anchored_path(path, folder);
    anchored
        .into_os_string()
        .into_string()
        .map_err(|_| "is relative to a folder whose path is not UTF-8")
}

/// Makes a path absolute: relative to `folder`, or to the home folder after `~/`.
pub(crate) fn anchored_path(path: &str, folder: &Path) -> PathBuf {
    if let Some(rest) = path.strip_prefix("~/")
        && let Ok(home) = etcetera::home_dir()
    {
        return home.join(rest);
    }
    folder.join(path)
}

/// Splits the URL of a server, without its scheme, into the address and the options with their `?`.
fn server_parts(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    SERVERS.contains(&scheme).then(|| cut_query(rest))
}

fn cut_query(text: &str) -> (&str, &str) {
    text.find('?').map_or((text, ""), |at| text.split_at(at))
}

/// Returns the options with their names decoded, because the library decodes `p%61ssword` too.
fn options(query: &str) -> impl Iterator<Item = (String, &str)> {
    let pairs = query.strip_prefix('?').unwrap_or(query).split('&');
    pairs
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (percent_decode_str(name).decode_utf8_lossy().into_owned(), value))
}

#[cfg(test)]
mod tests {
    use cubbyhole::StoreUrl;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn password_is_inserted_into_the_userinfo() {
        for (url, with) in [
            (
                "postgres://app@db/state?sslmode=require",
                "postgres://app:p%40%3A@db/state?sslmode=require",
            ),
            ("postgresql://app:@a:1,b:2/x", "postgresql://app:p%40%3A@a:1,b:2/x"),
            ("postgres://db/x?user=app", "postgres://:p%40%3A@db/x?user=app"),
            ("postgres://app@/x?host=/run", "postgres://app:p%40%3A@/x?host=/run"),
            ("redis://cache:6379/0", "redis://:p%40%3A@cache:6379/0"),
            ("rediss://app@cache", "rediss://app:p%40%3A@cache"),
            (
                "redis+cluster://a:1,[::1]:2?prefix=x",
                "redis+cluster://:p%40%3A@a:1,[::1]:2?prefix=x",
            ),
        ] {
            assert_eq!(with_password(url, "p@:").as_deref(), Ok(with));
        }
    }

    #[test]
    fn url_that_takes_no_password_is_refused() {
        for (url, part) in [
            ("redb:state.redb", "server"),
            ("memory:", "server"),
            ("http://app@host", "server"),
            ("", "server"),
            ("postgres://app:s3cret@db/state", "already"),
            ("postgres://app@db/state?password=s3cret", "already"),
            ("postgres://app@db/state?p%61ssword=s3cret", "already"),
            ("redis://:s3cret@cache", "already"),
            ("postgres://db/state", "USER"),
        ] {
            let refused = with_password(url, "new").unwrap_err();
            assert!(refused.contains(part) && !refused.contains("s3cret"), "{url}: {refused}");
        }
    }

    #[test]
    fn relative_paths_start_at_the_folder() {
        let folder = Path::new("/etc/cubbyhole");
        for (url, expected) in [
            ("redb:a.redb?durability=relaxed", "redb:/etc/cubbyhole/a.redb?durability=relaxed"),
            ("redb:/srv/a.redb", "redb:/srv/a.redb"),
            ("redb:", "redb:"),
            ("memory:", "memory:"),
            ("postgres://a@b/c", "postgres://a@b/c"),
            (
                "postgres://a@b/c?sslmode=require&sslrootcert=my%20ca.pem&schema=x",
                "postgres://a@b/c?sslmode=require&sslrootcert=/etc/cubbyhole/my%20ca.pem&schema=x",
            ),
            ("postgres://a?sslrootcert=system", "postgres://a?sslrootcert=system"),
            (
                "postgres://a?sslcert=a.crt&sslkey=a.key&sslcrl=a.crl&passfile=p",
                "postgres://a?sslcert=/etc/cubbyhole/a.crt&sslkey=/etc/cubbyhole/a.key\
                 &sslcrl=/etc/cubbyhole/a.crl&passfile=/etc/cubbyhole/p",
            ),
            ("rediss://a?tls_ca=%2Fca.pem", "rediss://a?tls_ca=/ca.pem"),
            (
                "rediss://a?tls_cert=c.pem&tls_key=keys/k.pem",
                "rediss://a?tls_cert=/etc/cubbyhole/c.pem&tls_key=/etc/cubbyhole/keys/k.pem",
            ),
        ] {
            assert_eq!(anchored(url, folder).as_deref(), Ok(expected));
        }
        for (url, folder, expected) in [
            ("redb:a.redb", "/why?", "redb:/why%3F/a.redb"),
            ("redb:b%3fc%.redb", "/x%20y", "redb:/x%2520y/b%3Fc%25.redb"),
            ("redb://host/a", "/x", "redb://host/a"),
        ] {
            assert_eq!(anchored(url, Path::new(folder)).as_deref(), Ok(expected));
        }
        for url in ["redb:a.redb\r", "redis://h\n", "memory:\t"] {
            assert!(anchored(url, folder).unwrap_err().contains("control character"));
        }
        if let Ok(home) = etcetera::home_dir() {
            assert_eq!(anchored_path("~/a", folder), home.join("a"));
        }
    }

    fn cases() -> ProptestConfig {
        ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(cases())]

        /// The password decodes to the original, and is not shown.
        #[test]
        fn any_password_round_trips_and_is_hidden(password in "\\PC{1,20}[\u{1}-\u{1f}é]") {
            for (scheme, user, rest) in [
                ("postgres", "app", "db:5432/state?sslmode=require"),
                ("redis+cluster", "", "a:1,b:2?prefix=x"),
            ] {
                let given = if user.is_empty() { String::new() } else { format!("{user}@") };
                let url = with_password(&format!("{scheme}://{given}{rest}"), &password);
                let url = url.map_err(TestCaseError::fail)?;
                let (userinfo, after) = url.strip_prefix(scheme).and_then(|url| url.strip_prefix("://"))
                    .and_then(|url| url.split_once('@')).unwrap_or_default();
                prop_assert_eq!(after, rest);
                let (read_user, read) = userinfo.split_once(':').unwrap_or_default();
                prop_assert_eq!(read_user, user);
                prop_assert_eq!(percent_decode_str(read).decode_utf8_lossy(), password.as_str());
                prop_assert!(has_password(&url));
                prop_assert_eq!(StoreUrl::redact(&url), format!("{scheme}://{user}:***@{rest}"));
            }
        }
    }
}
