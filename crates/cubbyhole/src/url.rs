//! Which backend a URL names.

use crate::{Error, Result};

#[derive(Debug)]
pub(crate) enum StoreUrl {
    Memory,
    #[cfg(feature = "embedded")]
    Embedded(cubbyhole_embedded::Config),
    #[cfg(feature = "postgres")]
    Postgres(Box<cubbyhole_postgres::Config>),
    #[cfg(feature = "redis")]
    Redis(Box<cubbyhole_redis::Config>),
}

impl StoreUrl {
    // No message quotes the URL: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        if url.contains(char::is_control) {
            return Err(Error::invalid_argument(
                "the URL of the store holds a control character, such as a line end: remove it, or \
                 write it percent-encoded (%0A, %0D) if it is meant",
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

/// A path that has escapes is decoded. If only a file by its undecoded name exists, the caller most
/// likely means that file: opening another one, or creating it, would look like lost data.
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
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn what_is_no_store_is_an_invalid_argument() {
        for url in ["", "store.redb", "http://x", "memory:x", "REDB:x", ":"] {
            let error = StoreUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        }
    }

    #[test]
    fn control_characters_are_refused_in_every_url() {
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
    fn url_that_names_a_file_undecoded_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = |name: &str| format!("redb:{}/{name}", folder.path().display());
        let path = |name: &str| match StoreUrl::parse(&url(name)).unwrap() {
            StoreUrl::Embedded(config) => config.path().to_owned(),
            other => panic!("{other:?}"),
        };
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
    fn a_bad_option_is_named_and_no_password_is_shown() {
        let error = StoreUrl::parse("postgres://u:s3cret@h/db?pool_size=many").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().contains("pool_size"), "{error}");
        assert!(!format!("{error:?}").contains("s3cret"));
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_is_one_server_or_a_cluster() {
        for url in ["redis://h", "rediss://:s3cret@h", "redis+cluster://h:1,h:2"] {
            let parsed = StoreUrl::parse(url).unwrap();
            assert!(matches!(&parsed, StoreUrl::Redis(_)), "{url}");
            assert!(!format!("{parsed:?}").contains("s3cret"));
        }
    }

    #[cfg(not(all(feature = "embedded", feature = "postgres", feature = "redis")))]
    #[test]
    fn what_was_not_compiled_in_says_so_and_shows_no_password() {
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
}
