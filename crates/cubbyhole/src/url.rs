//! Which backend a URL names.

#[cfg(feature = "embedded")]
use cubbyhole_embedded::EmbeddedConfig;

use crate::{Error, Result};

#[derive(Debug)]
pub(crate) enum StoreUrl {
    Memory,
    #[cfg(feature = "embedded")]
    Embedded(EmbeddedConfig),
}

impl StoreUrl {
    // No message quotes the URL: it may hold a password.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let (scheme, rest) = url.split_once(':').ok_or_else(unknown)?;
        match scheme {
            "memory" if rest.is_empty() => Ok(Self::Memory),
            "memory" => Err(Error::invalid_argument("`memory:` takes nothing after the colon")),
            #[cfg(feature = "embedded")]
            "redb" => EmbeddedConfig::from_url_path(rest).map(Self::Embedded),
            #[cfg(not(feature = "embedded"))]
            "redb" => Err(built_without("embedded")),
            "postgres" | "postgresql" => Err(built_without("postgres")),
            "redis" | "rediss" | "redis+cluster" => Err(built_without("redis")),
            _ => Err(unknown()),
        }
    }
}

fn built_without(feature: &'static str) -> Error {
    Error::unsupported(format!("built without `{feature}`"))
}

fn unknown() -> Error {
    Error::invalid_argument("not the URL of a store: write `memory:` or `redb:PATH`")
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
    fn what_was_not_compiled_in_says_so_and_shows_no_password() {
        for url in ["postgres://u:s3cret@h/db", "rediss://:s3cret@h", "redis+cluster://h:1,h:2"] {
            let error = StoreUrl::parse(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().starts_with("built without `"), "{error}");
            assert!(!format!("{error:?}").contains("s3cret"));
        }
    }
}
