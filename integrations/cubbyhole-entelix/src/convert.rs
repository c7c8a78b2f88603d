//! Conversions of arguments and errors between entelix and Cubbyhole.

use cubbyhole_core as ours;
use cubbyhole_core::ErrorKind;
use entelix_core::{Error, Result, TenantId};
use entelix_memory as theirs;
use serde_json::Error as JsonError;

pub(crate) fn context(ctx: &entelix_core::ExecutionContext) -> ours::ExecutionContext {
    let converted = ours::ExecutionContext::new().with_cancellation(ctx.cancellation().clone());
    match ctx.deadline() {
        Some(deadline) => converted.with_deadline(deadline.into_std()),
        None => converted,
    }
}

pub(crate) fn namespace(ns: &theirs::Namespace) -> Result<ours::Namespace> {
    ours::Namespace::from_parts(ns.tenant_id().as_str(), ns.scope()).map_err(error)
}

pub(crate) fn prefix(prefix: &theirs::NamespacePrefix) -> Result<ours::NamespacePrefix> {
    ours::NamespacePrefix::from_parts(prefix.tenant_id().as_str(), prefix.scope()).map_err(error)
}

pub(crate) fn namespace_back(ns: &ours::Namespace) -> Result<theirs::Namespace> {
    let tenant = TenantId::try_from(ns.tenant().as_str())?;
    let namespace = theirs::Namespace::new(tenant);
    Ok(ns.segments().fold(namespace, |namespace, segment| namespace.with_scope(segment)))
}

/// Converts the options of a write. `ttl` is the only option of this version of entelix.
pub(crate) fn put_options(options: &theirs::PutOptions) -> ours::PutOptions {
    match options.ttl {
        Some(ttl) => ours::PutOptions::new().with_ttl(ttl),
        None => ours::PutOptions::new(),
    }
}

pub(crate) fn error(error: ours::Error) -> Error {
    match error.kind() {
        ErrorKind::InvalidArgument => Error::invalid_request(error.to_string()),
        ErrorKind::Cancelled => Error::Cancelled,
        ErrorKind::DeadlineExceeded => Error::DeadlineExceeded,
        ErrorKind::Unavailable | ErrorKind::ResourceExhausted => {
            Error::provider_network_from(error)
        }
        ErrorKind::RateLimited => {
            let retry_after = error.retry_after();
            let converted = Error::provider_http_from(429, error);
            match retry_after {
                Some(pause) => converted.with_retry_after(pause),
                None => converted,
            }
        }
        ErrorKind::Codec | ErrorKind::Corrupt => {
            Error::Serde(<JsonError as serde::de::Error>::custom(error))
        }
        _ => Error::config(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use entelix_core::ProviderErrorKind;

    use super::*;

    #[test]
    fn namespaces_convert_both_ways_with_the_same_text() {
        for parts in [vec!["acme"], vec!["a:b\\", "", "k8s:pod\\x", "ä\u{1F980}"]] {
            let mut ns = theirs::Namespace::new(TenantId::new(parts[0]));
            for segment in &parts[1..] {
                ns = ns.with_scope(*segment);
            }
            let converted = namespace(&ns).unwrap();
            assert_eq!(converted.as_str(), ns.render());
            assert_eq!(namespace_back(&converted).unwrap(), ns);
            let prefix = prefix(&theirs::NamespacePrefix::from(&ns)).unwrap();
            assert_eq!(prefix.as_str(), ns.render());
        }
    }

    #[test]
    fn rate_limit_keeps_the_time_to_wait() {
        let limited = ours::Error::rate_limited("too many calls", Some(Duration::from_secs(3)));
        match error(limited) {
            Error::Provider { kind, retry_after, source, .. } => {
                assert_eq!(kind, ProviderErrorKind::Http(429));
                assert_eq!(retry_after, Some(Duration::from_secs(3)));
                assert!(source.unwrap().is::<ours::Error>());
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn kinds_convert_as_the_table_says() {
        let invalid = error(ours::Error::invalid_argument("a"));
        assert!(matches!(invalid, Error::InvalidRequest(text) if text == "a"));
        assert!(matches!(error(ours::Error::cancelled()), Error::Cancelled));
        assert!(matches!(error(ours::Error::deadline_exceeded()), Error::DeadlineExceeded));
        for outage in [ours::Error::unavailable("a"), ours::Error::resource_exhausted("a")] {
            let converted = error(outage);
            let Error::Provider { kind, .. } = converted else { panic!("{converted:?}") };
            assert_eq!(kind, ProviderErrorKind::Network);
        }
        for damage in [ours::Error::codec("a"), ours::Error::corrupt("a")] {
            assert!(matches!(error(damage), Error::Serde(text) if text.to_string() == "a"));
        }
        assert!(matches!(error(ours::Error::permission_denied("a")), Error::Config(_)));
    }
}
