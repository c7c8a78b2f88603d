//! Every field of every layer, and every mistake.

use std::path::Path;

use super::*;

/// Reads the lines as the layers of a profile. They begin at line 4 of the file.
fn read(lines: &str) -> Result<LayerSettings, String> {
    let text = format!("[profiles.p]\nstore = \"redb:p\"\n[profiles.p.layers]\n{lines}");
    let folder = Path::new("/srv/config");
    match (Reader { path: Path::new("c.toml"), text: &text, folder }).document() {
        Ok((_, mut profiles)) => Ok(profiles.remove("p").unwrap().layers),
        Err(failure) => Err(failure.message()),
    }
}

fn prefix(text: &str) -> NamespacePrefix {
    NamespacePrefix::parse(text).unwrap()
}

#[test]
fn every_field_of_every_layer_is_read() {
    let seconds = Duration::from_secs;
    let settings = read(
        r#"
        scope = "acme:app"
        read_only = true
        limit = { value_bytes = "64KiB", rate = 100, burst = 200, concurrency = 8 }
        ttl = { default = "30s", max = "1m 30s", too_long = "refuse" }
        cache = { bytes = 65536, max_stale = "5s" }
        timeout = { read = "1s", write = "2s", walk = "3s" }
        retry = { budget = 0.25, max_attempts = 10, max_backoff = "4s" }
        compression = { level = 19 }
        encryption = { key_file = "k", tenant_keys = "redb:../t", plaintext = "accept" }
        [[profiles.p.layers.ttl_by_prefix]]
        prefix = "acme:app:chat"
        max = "5s"
        [[profiles.p.layers.ttl_by_prefix]]
        prefix = "acme:app:log"
        default = "6s"
        too_long = "clamp"
        "#,
    )
    .unwrap();
    let rule = TtlRule::new().with_default(seconds(30)).with_max(seconds(90));
    let expected = Layers::new()
        .with_scope(prefix("acme:app"))
        .with_read_only(true)
        .with_limits(
            Limits::new().with_value_bytes(65536).with_rate(100, Some(200)).with_concurrency(8),
        )
        .with_ttl_rule(rule.with_too_long(TooLong::Refuse))
        .with_ttl_rule_for(prefix("acme:app:chat"), TtlRule::new().with_max(seconds(5)))
        .with_ttl_rule_for(prefix("acme:app:log"), TtlRule::new().with_default(seconds(6)))
        .with_cache(CacheOptions::new().with_bytes(65536).with_max_stale(seconds(5)))
        .with_timeouts(
            Timeouts::new().with_read(seconds(1)).with_write(seconds(2)).with_walk(seconds(3)),
        )
        .with_retry(
            RetryOptions::new()
                .with_budget(0.25)
                .with_max_attempts(10)
                .with_max_backoff(seconds(4)),
        )
        .with_compression(19);
    assert_eq!(format!("{:?}", settings.layers), format!("{expected:?}"));
    let expected = EncryptionSettings {
        keys: KeySource::File("/srv/config/k".into()),
        tenant_keys: Some("redb:/srv/config/../t".to_owned()),
        plaintext: Plaintext::Accept,
    };
    assert_eq!(settings.encryption, Some(expected));
    let names = "scope read_only limit ttl cache timeout retry compression encryption";
    assert_eq!(settings.names().join(" "), names);
}

#[test]
fn switches_turn_layers_on_and_off() {
    let on = read("cache = true\nretry = true\ncompression = true\nread_only = true").unwrap();
    assert_eq!(on.names(), ["read_only", "cache", "retry", "compression"]);
    let off = read("cache = false\nretry = false\ncompression = false\nread_only = false");
    assert!(off.unwrap().names().is_empty());
    let keys = read("encryption = { key_env = \"KEYS\", tenant_keys = \"in-store\" }").unwrap();
    let expected = EncryptionSettings {
        keys: KeySource::Environment("KEYS".to_owned()),
        tenant_keys: None,
        plaintext: Plaintext::Refuse,
    };
    assert_eq!(keys.encryption, Some(expected));
    assert!(read("").unwrap().names().is_empty());
}

/// Lines with one mistake, the words of the message, and the line in the file.
const MISTAKES: &[(&str, &[&str], usize)] = &[
    ("\ncashe = true", &["`cashe` is unknown", "`cache`", "`encryption`"], 5),
    ("scope = 1", &["`scope` must be text"], 4),
    ("scope = 'a\\x'", &["`scope` must be a namespace", "acme:app"], 4),
    ("read_only = \"yes\"", &["`read_only` must be true or false"], 4),
    ("limit = 5", &["`limit` must be a table", "value_bytes"], 4),
    ("limit = { size = 5 }", &["`size` is unknown", "`value_bytes`, `rate`"], 4),
    ("limit = { burst = 5 }", &["`limit` has a `burst` without a `rate`"], 4),
    ("limit = { rate = 0 }", &["`limit` is wrong", "`rate` is zero"], 4),
    ("limit = { rate = 1, burst = 0 }", &["`burst` is zero"], 4),
    ("limit = { rate = -1 }", &["`rate` must be a positive whole number"], 4),
    ("limit = { rate = \"5\" }", &["`rate` must be a positive whole number without quot"], 4),
    ("limit = { rate = 1.5 }", &["`rate` must be a positive whole number"], 4),
    ("limit = { concurrency = 0 }", &["`concurrency` is zero"], 4),
    ("limit = { value_bytes = 0 }", &["`value_bytes` must be a size", "64KiB"], 4),
    ("limit = { value_bytes = \"s3cret\" }", &["`value_bytes` must be a size"], 4),
    ("limit = { value_bytes = -5 }", &["`value_bytes` must be a size"], 4),
    ("ttl = \"30d\"", &["`ttl` must be a table", "default = "], 4),
    ("ttl = { default = \"2d\", max = \"1d\" }", &["`ttl` is wrong", "longer than its `max`"], 4),
    ("ttl = { default = \"0s\" }", &["`default` must be a duration greater than zero"], 4),
    ("ttl = { max = 30 }", &["`max` must be text in quotation marks"], 4),
    ("ttl = { max = \"9000years\" }", &["`max`"], 4),
    ("ttl = { too_long = \"s3cret\" }", &["`too_long` must be \"clamp\" or \"refuse\""], 4),
    ("ttl = { min = \"1s\" }", &["`min` is unknown", "`default`, `max`"], 4),
    ("ttl_by_prefix = { prefix = \"a\" }", &["[[profiles.NAME.layers.ttl_by_prefix]]"], 4),
    ("ttl_by_prefix = [1]", &["[[profiles.NAME.layers.ttl_by_prefix]]"], 4),
    ("ttl_by_prefix = [{ max = \"1s\" }]", &["rule without a `prefix`"], 4),
    ("ttl_by_prefix = [\n{ prefix = \"a\", min = \"1s\" }]", &["`min` is unknown", "`prefix`"], 5),
    ("ttl_by_prefix = [\n{ prefix = \":\", max = \"1s\" }]", &["`prefix` must be a name"], 5),
    ("ttl_by_prefix = [{ prefix = \"a\", default = \"2s\", max = \"1s\" }]", &["is wrong"], 4),
    ("cache = 1", &["`cache` must be written cache = true, or {"], 4),
    ("cache = { bytes = \"0\" }", &["`bytes` must be a size"], 4),
    ("cache = { max_stale = \"0s\" }", &["`max_stale` must be a duration"], 4),
    ("cache = { ttl = \"1s\" }", &["`ttl` is unknown", "`bytes` and `max_stale`"], 4),
    ("timeout = \"1s\"", &["`timeout` must be a table", "read = "], 4),
    ("timeout = { write = \"0ms\" }", &["`write` must be a duration"], 4),
    ("timeout = { scan = \"1s\" }", &["`scan` is unknown", "`walk`"], 4),
    ("retry = 3", &["`retry` must be written retry = true, or {"], 4),
    ("retry = { budget = 2 }", &["`retry` is wrong", "from 0 to 1"], 4),
    ("retry = { budget = nan }", &["`retry` is wrong", "from 0 to 1"], 4),
    ("retry = { budget = \"0.2\" }", &["`budget` must be a number from 0 to 1"], 4),
    ("retry = { max_attempts = 0 }", &["`retry` is wrong", "max_attempts"], 4),
    ("retry = { max_backoff = \"1ns\" }", &["`retry` is wrong", "backoff"], 4),
    ("retry = { attempts = 1 }", &["`attempts` is unknown", "`max_attempts`"], 4),
    ("compression = { level = 20 }", &["`compression` must have a `level` from 1 to 19"], 4),
    ("compression = { level = 0 }", &["`compression` must have a `level` from 1 to 19"], 4),
    ("compression = \"zstd\"", &["`compression` must be written compression = true"], 4),
    ("compression = { kind = 1 }", &["`kind` is unknown", "`level`"], 4),
    ("encryption = true", &["`encryption` must be a table", "key_file"], 4),
    ("encryption = {}", &["needs `key_file` or `key_env`", "key generate FILE"], 4),
    ("encryption = { key_file = \"a\", key_env = \"B\" }", &["only one of `key_file`"], 4),
    ("encryption = { key_file = \"\" }", &["`key_file` must be the path"], 4),
    ("encryption = { key_env = \"s3cret!\" }", &["`key_env` must be the name"], 4),
    ("encryption = { key = \"s3cret\" }", &["`key` is unknown", "`key_file`"], 4),
    ("encryption = { key_env = \"K\", plaintext = \"s3cret\" }", &["\"refuse\" or \"accept\""], 4),
    ("encryption = { key_env = \"K\", tenant_keys = \"s3cret\" }", &["`tenant_keys` must be"], 4),
];

#[test]
fn mistake_is_refused_with_its_line_and_what_to_write() {
    for (lines, parts, line) in MISTAKES {
        let message = read(lines).map(|settings| settings.names()).unwrap_err();
        assert!(message.starts_with(&format!("c.toml, line {line}: ")), "{lines}: {message}");
        assert!(!message.contains("s3cret"), "{message}");
        for part in *parts {
            assert!(message.contains(part), "{lines}: {message}");
        }
    }
}
