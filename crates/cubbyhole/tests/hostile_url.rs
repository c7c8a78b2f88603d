//! Hostile URLs. Parsers must not panic, and must refuse a wrong URL as an invalid argument. No
//! message and no debug output may show a password.
//!
//! Only the parsers run: no test connects to a server or creates a file. `PROPTEST_CASES` sets the
//! number of cases of each property.

#![cfg(all(feature = "embedded", feature = "postgres", feature = "redis"))]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::error::Error as _;
use std::fmt::Debug;
use std::path::Path;

use cubbyhole::{
    Error, ErrorKind, ExecutionContext, OpenOptions, StoreUrl, embedded, postgres, redis,
};
use proptest::prelude::*;

/// A part of the password that occurs nowhere else in these URLs.
const SECRET: &str = "s3cret";

/// Failing cases are printed and not saved to a file.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// Text that is special to one of the parsers.
const PIECES: [&str; 60] = [
    "memory:",
    "redb:",
    "postgres://",
    "postgresql://",
    "redis://",
    "rediss://",
    "redis+cluster://",
    "rediss+cluster://",
    "http://",
    "REDIS://",
    "redis:",
    "postgres:",
    ":",
    "//",
    "/",
    "?",
    "&",
    "=",
    "@",
    ",",
    "[",
    "]",
    "[::1]",
    "[fe80::1%25eth0]",
    "::1",
    "host",
    "a.example",
    "127.0.0.1",
    "6379",
    ":0",
    ":65535",
    ":65536",
    ":-1",
    ":99999999999999999999",
    "%",
    "%2",
    "%zz",
    "%00",
    "%ff",
    "%40",
    "%3A",
    "%2Ftmp",
    "\0",
    "\n",
    " ",
    "ü",
    "durability=relaxed",
    "sslmode=verify-full",
    "schema=a",
    "pool_size=0",
    "idle_timeout=4294967296",
    "host=b",
    "options=-c%20x",
    "prefix={",
    "connections=2",
    "wait_timeout=1ms",
    "tls_ca=/x",
    "tls_cert=/x&tls_key=/y",
    "tls_key=/y",
    "retry_timeout=18446744073709551615s",
];

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => prop::sample::select(&PIECES[..]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
        1 => any::<u32>().prop_map(|number| number.to_string()),
    ];
    prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat())
}

/// Arbitrary text, with and without a scheme.
fn any_url() -> impl Strategy<Value = String> {
    let scheme = prop::sample::select(&PIECES[..9]);
    prop_oneof![
        2 => pieces(),
        3 => (scheme, pieces()).prop_map(|(scheme, rest)| format!("{scheme}{rest}")),
        1 => any::<String>(),
    ]
}

const HOSTS: [&str; 7] =
    ["", "db", "db:7000", "[::1]", "[::1]:7000", "a:1,b:2", "a,[fe80::1]:7,c.example:8"];
const TAILS: [&str; 11] = [
    "",
    "/",
    "/0",
    "/state",
    "/state?sslmode=require&schema=agents&pool_size=3",
    "?prefix=a%3A",
    "/3?connect_timeout=7&retry_timeout=500ms",
    "?host=%2Fvar%2Frun",
    "?wait_replicas=1",
    "/state?options=-c%20geqo%3Doff&application_name=x&target_session_attrs=read-write",
    "/state?pooler=transaction&statement_cache=off&migrate=on&allow_unbound_role=on",
];
/// Text in a password that is special in a URL and often not encoded.
const IN_PASSWORDS: [&str; 17] = [
    "", "@", ":", "/", "?", "#", "&", "=", ",", "[", "]", "%", "%ff", "%40", "?host=", "?a=", "@x/",
];

/// A URL whose password contains unencoded special text between occurrences of `SECRET`.
fn with_password() -> impl Strategy<Value = String> {
    let schemes = &PIECES[2..8];
    (
        prop::sample::select(schemes),
        prop::sample::select(vec!["", "app", "app%40x"]),
        prop::collection::vec(prop::sample::select(&IN_PASSWORDS[..]), 0..4),
        prop::sample::select(&HOSTS[..]),
        prop::sample::select(&TAILS[..]),
    )
        .prop_map(|(scheme, user, middle, host, tail)| {
            let middle = middle.join(SECRET);
            format!("{scheme}{user}:{SECRET}{middle}{SECRET}@{host}{tail}")
        })
}

/// A URL that is changed or truncated after the password.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(&PIECES[8..]);
    (with_password(), any::<prop::sample::Index>(), piece, 0..4_u8).prop_map(
        |(url, at, piece, how)| {
            let begin = url.rfind('@').unwrap_or(0) + 1;
            let positions: Vec<usize> =
                url.char_indices().map(|(at, _)| at).filter(|at| *at >= begin).collect();
            let at = match positions.len() {
                0 => url.len(),
                length => positions[at.index(length)],
            };
            let (before, after) = url.split_at(at);
            match how {
                0 => before.to_owned(),
                1 => format!("{before}{piece}{after}"),
                2 => format!("{before}{}", after.chars().skip(1).collect::<String>()),
                _ => format!("{before}{piece}{}", after.chars().skip(1).collect::<String>()),
            }
        },
    )
}

/// Returns the text of an error and of all its sources.
fn shown(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text} {cause} {cause:?}");
        source = cause.source();
    }
    text
}

fn check<T: Debug>(url: &str, result: Result<T, Error>) -> bool {
    match result {
        Ok(config) => {
            let shown = format!("{config:?} {config:#?}");
            assert!(!shown.contains(SECRET), "{url}: {shown}");
            true
        }
        Err(error) => {
            let refusals = [ErrorKind::InvalidArgument, ErrorKind::Unsupported];
            assert!(refusals.contains(&error.kind()), "{url}: {error:?}");
            let shown = shown(&error);
            assert!(!shown.contains(SECRET), "{url}: {shown}");
            assert!(shown.len() < 3_000, "{url}: {shown}");
            false
        }
    }
}

/// Parses a URL with every parser. Returns which of them accepted it.
fn parse_everywhere(url: &str) -> [bool; 3] {
    let path = url.split_once(':').map_or(url, |(_, rest)| rest);
    check(url, StoreUrl::parse(url));
    [
        embedded::Config::from_url_path(path).map(|config| config.path().as_os_str().len()).is_ok(),
        check(url, postgres::Config::from_url(url)),
        check(url, redis::Config::from_url(url)),
    ]
}

/// Whether opening the URL would connect to a server or open a file.
fn would_be_opened(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    match scheme {
        "memory" => rest.is_empty(),
        "redb" => embedded::Config::from_url_path(rest).is_ok(),
        "postgres" | "postgresql" => postgres::Config::from_url(url).is_ok(),
        "redis" | "rediss" | "redis+cluster" | "rediss+cluster" => {
            redis::Config::from_url(url).is_ok()
        }
        _ => false,
    }
}

/// Asserts that every entry point refuses the URL.
fn assert_refused_everywhere(url: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let ctx = ExecutionContext::new();
        let options = OpenOptions::new().with_create(false);
        let opened = options.open(&ctx, url).await.map(|_| "opened");
        assert!(!check(url, opened), "{url} was opened");
        assert!(!check(url, cubbyhole::migrate(&ctx, url).await), "{url} was migrated");
        assert!(!check(url, cubbyhole::diagnose(&ctx, url).await), "{url} was diagnosed");
        assert!(!check(url, cubbyhole::repair(&ctx, url).await), "{url} was repaired");
    });
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn any_text_is_a_valid_url_or_an_invalid_argument(url in any_url()) {
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            assert_refused_everywhere(&url);
        }
    }

    #[test]
    fn password_is_never_shown(url in with_password()) {
        prop_assert!(!StoreUrl::redact(&url).contains(SECRET), "{}", StoreUrl::redact(&url));
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            assert_refused_everywhere(&url);
        }
    }

    #[test]
    fn password_is_never_shown_for_a_corrupted_url(url in mutated()) {
        prop_assert!(!StoreUrl::redact(&url).contains(SECRET), "{}", StoreUrl::redact(&url));
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            assert_refused_everywhere(&url);
        }
    }

    #[test]
    fn any_percent_encoded_password_is_accepted(
        password in "\\PC{1,20}", host in prop::sample::select(vec!["db", "db:7000", "[::1]:7000"]),
    ) {
        let encoded: String = password.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for scheme in ["postgres://", "redis://", "rediss://"] {
            let url = format!("{scheme}app:{SECRET}{encoded}@{host}");
            let [_, postgres, redis] = parse_everywhere(&url);
            prop_assert_eq!([postgres, redis], [scheme == "postgres://", scheme != "postgres://"]);
        }
    }

    #[test]
    fn path_without_escapes_is_literal(path in "[^?%]{1,40}") {
        let config = embedded::Config::from_url_path(&path);
        let names_a_host = path.starts_with("//") && !path.starts_with("///");
        prop_assert_eq!(config.is_err(), names_a_host || path.contains(char::is_control));
        if let Ok(config) = config {
            prop_assert_eq!(config.path(), Path::new(&path));
        }
    }

    #[test]
    fn any_percent_encoded_path_is_decoded(path in "[^\\x00]{1,20}") {
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let config = embedded::Config::from_url_path(&encoded).unwrap();
        prop_assert_eq!(config.path(), Path::new(&path));
        let url = config.to_url().unwrap();
        let again = embedded::Config::from_url_path(url.strip_prefix("redb:").unwrap()).unwrap();
        prop_assert_eq!(again.path(), Path::new(&path));
    }

    #[test]
    fn unknown_option_of_a_file_url_is_refused(query in "(durability=(immediate|relaxed)|read_only=(true|false)|[a-z=&?]{0,12}|&){0,4}") {
        let options = [
            "", "durability=immediate", "durability=relaxed", "read_only=true", "read_only=false",
        ];
        let known = query.split('&').all(|option| options.contains(&option));
        let config = embedded::Config::from_url_path(&format!("a.redb?{query}"));
        prop_assert_eq!(config.is_ok(), known);
        if let Err(error) = config {
            prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
    }
}

/// Regression cases.
#[test]
fn ambiguous_urls_show_no_password() {
    for url in [
        "postgres://app:p@s3cret@db/state",
        "postgres://app:12?host=s3cret@db",
        "postgres://app:12?user=s3cret@db",
        "postgres://app:12?dbname=s3cret@db",
        "postgres://app:p@x/s3cret@db/state",
        "redis://app:p@s3cret@db",
        "redis://app:12?prefix=s3cret@db",
        "redis://app:p@x/s3cret@db",
    ] {
        parse_everywhere(url);
    }
}
