//! Hostile URLs: nothing panics, what is no URL of a store says so as an argument, and a password is
//! in no message and in no configuration that is shown.
//!
//! The parsers alone: nothing is connected to and no file is made. `PROPTEST_CASES` sets how many
//! cases each property tries.

#![cfg(all(feature = "embedded", feature = "postgres", feature = "redis"))]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::error::Error as _;
use std::fmt::Debug;
use std::path::Path;

use cubbyhole::{Error, ErrorKind, ExecutionContext, OpenOptions, embedded, postgres, redis};
use proptest::prelude::*;

/// A word of the password, which nothing else in these URLs holds.
const SECRET: &str = "s3cret";

/// A failure is printed, shrunk, and leaves no file in the sources.
fn cases() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::default() }
}

/// What means something to one of the parsers.
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

/// A scheme, and then anything at all.
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
/// What a password may hold that a URL has a meaning for, and that people forget to encode.
const IN_PASSWORDS: [&str; 17] = [
    "", "@", ":", "/", "?", "#", "&", "=", ",", "[", "]", "%", "%ff", "%40", "?host=", "?a=", "@x/",
];

/// A good URL but for its password, which has `SECRET` on either side of what it may hold.
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

/// One byte changed, taken away or put in behind the password, or the whole cut off there.
fn mutated() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(&PIECES[8..]);
    (with_password(), any::<prop::sample::Index>(), piece, 0..4_u8).prop_map(
        |(url, at, piece, how)| {
            let begin = url.rfind('@').unwrap_or(0) + 1;
            let places: Vec<usize> =
                url.char_indices().map(|(at, _)| at).filter(|at| *at >= begin).collect();
            let at = if places.is_empty() { url.len() } else { places[at.index(places.len())] };
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

/// Everything that an error shows, the whole chain.
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

/// Hands a URL to each parser that may be asked to read it.
fn parse_everywhere(url: &str) -> [bool; 3] {
    let path = url.split_once(':').map_or(url, |(_, rest)| rest);
    [
        embedded::Config::from_url_path(path).map(|config| config.path().as_os_str().len()).is_ok(),
        check(url, postgres::Config::from_url(url)),
        check(url, redis::Config::from_url(url)),
    ]
}

/// Whether opening it would leave the process, which no test here may do.
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

/// Opening, migrating, diagnosing and repairing read the URL before anything else.
fn is_refused_everywhere(url: &str) {
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
    fn any_text_is_a_url_or_an_invalid_argument(url in any_url()) {
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            is_refused_everywhere(&url);
        }
    }

    #[test]
    fn a_password_is_shown_nowhere(url in with_password()) {
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            is_refused_everywhere(&url);
        }
    }

    #[test]
    fn a_password_is_shown_nowhere_when_the_rest_of_the_url_is_spoilt(url in mutated()) {
        parse_everywhere(&url);
        if !would_be_opened(&url) {
            is_refused_everywhere(&url);
        }
    }

    #[test]
    fn a_password_that_is_encoded_is_taken_whatever_it_holds(
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
    fn path_without_escapes_is_literal_and_without_control_characters(path in "[^?%]{1,40}") {
        let config = embedded::Config::from_url_path(&path);
        let names_a_host = path.starts_with("//") && !path.starts_with("///");
        prop_assert_eq!(config.is_err(), names_a_host || path.contains(char::is_control));
        if let Ok(config) = config {
            prop_assert_eq!(config.path(), Path::new(&path));
        }
    }

    #[test]
    fn encoded_path_is_decoded_whatever_it_holds(path in "[^\\x00]{1,20}") {
        let encoded: String = path.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let config = embedded::Config::from_url_path(&encoded).unwrap();
        prop_assert_eq!(config.path(), Path::new(&path));
        let url = config.to_url().unwrap();
        let again = embedded::Config::from_url_path(url.strip_prefix("redb:").unwrap()).unwrap();
        prop_assert_eq!(again.path(), Path::new(&path));
    }

    #[test]
    fn an_option_of_a_file_is_known_or_refused(query in "(durability=(immediate|relaxed)|read_only=(true|false)|[a-z=&?]{0,12}|&){0,4}") {
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

/// Found by the properties above, or thought of.
#[test]
fn urls_that_are_easily_mistaken_show_no_password() {
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
