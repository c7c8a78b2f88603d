//! Parsing of URLs.

use cubbyhole_core::ErrorKind;

use super::*;

#[test]
fn url_sets_every_option() {
    let config = Config::from_url(
        "rediss://app:s3%40cret@db:7000/3?prefix=a%3A&connect_timeout=7&retry_timeout=0\
         &connections=5&wait_replicas=2&wait_timeout=250ms&wait_connections=3&tls_ca=%2Fca.pem\
             &tls_cert=%2Fc.pem&tls_key=k.pem",
    )
    .unwrap();
    assert!(config.tls && !config.cluster);
    assert_eq!(config.addresses, [Address { host: "db".to_owned(), port: 7000 }]);
    assert_eq!(config.username.as_deref(), Some("app"));
    assert_eq!(config.password.as_deref(), Some("s3@cret"));
    assert_eq!(config.database, 3);
    assert_eq!(config.prefix, "a:");
    assert_eq!(config.connect_timeout, Duration::from_secs(7));
    assert_eq!(config.retry_timeout, Duration::ZERO);
    assert_eq!(config.connections, 5);
    assert_eq!((config.wait_replicas, config.wait_connections), (2, 3));
    assert_eq!(config.wait_timeout, Duration::from_millis(250));
    assert_eq!(config.root_cert, Some(PathBuf::from("/ca.pem")));
    assert_eq!(config.client_cert, Some(PathBuf::from("/c.pem")));
    assert_eq!(config.client_key, Some(PathBuf::from("k.pem")));
}

#[test]
fn omitted_url_parts_have_defaults() {
    let config = Config::from_url("redis://").unwrap();
    assert_eq!(config.addresses, [Address { host: "localhost".to_owned(), port: 6379 }]);
    assert_eq!((config.username, config.password, config.database), (None, None, 0));
    assert_eq!(config.prefix, DEFAULT_PREFIX);
}

#[test]
fn cluster_url_lists_several_nodes() {
    let config = Config::from_url("redis+cluster://:pw@a:1,b,[::1]:3?prefix=").unwrap();
    let shown: Vec<String> = config.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["a:1", "b:6379", "[::1]:3"]);
    assert_eq!(config.password.as_deref(), Some("pw"));
    assert!(config.is_cluster() && config.prefix.is_empty());
}

#[test]
fn invalid_url_is_rejected_without_quoting_it() {
    for url in [
        "redis:s3cret",
        "http://s3cret",
        "redis://a:s3cret@b,c",
        "redis://a:s3cret@b:port",
        "redis://a:s3cret@b/x",
        "redis+cluster://a:s3cret@b/1",
        "redis://a:s3cret@b?prefix={x}",
        "redis://a:s3cret@b?prefix",
        "redis://a:s3cret@b?wait_timeout=0",
        "redis://a:s3cret@b?wait_timeout=-1",
        "redis://a:s3cret@b?wait_replicas=some",
        "redis://a:s3cret@b?wait_connections=0",
        "redis://a:s3cret@b?connections=0",
        "redis://a:s3cret@b?tls_ca=/x",
        "redis://a:s3cret@b?tls_cert=/x&tls_key=/y",
        "rediss://a:s3cret@b?tls_cert=/x",
        "rediss+cluster://a:s3cret@b?tls_key=/x",
        "redis://a:s3cret@b?S3CRET=1",
        "redis://app:12?s3cret=1@host",
        "redis://app:12?S3CRET=%ff@host",
        "redis://app:12?prefix=s3cret%ff@host",
        "redis://s3cret@host",
        "redis+cluster://:s3cret@a:1,",
        "redis+cluster://:s3cret@:7000",
        "redis://a:%ff@b",
        "redis://a:s3cret@[::1",
    ] {
        let error = Config::from_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        assert!(!format!("{error} {error:?}").to_lowercase().contains("s3cret"), "{error:?}");
    }
    let config = Config::from_url("redis://app:s3cret@db").unwrap();
    assert!(!format!("{config:?}").contains("s3cret"));
}

#[test]
fn user_without_password_needs_an_explicit_colon() {
    let credentials = |url: &str| {
        let config = Config::from_url(url).unwrap();
        (config.username, config.password)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(credentials("redis://app:pw@db"), (some("app"), some("pw")));
    assert_eq!(credentials("redis://app:@db"), (some("app"), some("")));
    assert_eq!(credentials("redis://:pw@db"), (None, some("pw")));
    for url in ["redis://db", "redis://@db", "redis://:@db"] {
        assert_eq!(credentials(url), (None, None), "{url}");
    }
    let refused = Config::from_url("redis://app@db").unwrap_err();
    assert!(refused.message().contains("USER:@HOST"), "{refused}");
}
