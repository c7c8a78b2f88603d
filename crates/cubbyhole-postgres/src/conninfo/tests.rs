//! Tests of libpq's rules, with a private environment and private files.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cubbyhole_core::{Error, ErrorKind, Result};
use rustls::version::{TLS12, TLS13};
use tempfile::TempDir;

use super::{Encryption, Environment, HostAddress, SessionAttrs};
use crate::config::Config;
use crate::connection::Connector;

/// Must not occur in any message or `Debug` output.
const SECRET: &str = "s3cret";

/// A user with a home folder and environment variables.
struct User {
    home: TempDir,
    variables: Vec<(&'static str, String)>,
}

impl User {
    fn new() -> Self {
        Self { home: TempDir::new().unwrap(), variables: Vec::new() }
    }

    fn with(variables: &[(&'static str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (*name, (*value).to_owned()));
        Self { variables: variables.collect(), ..Self::new() }
    }

    /// Writes a file in the home folder that no other user can read.
    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.home.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        set_mode(&file, 0o600);
        file
    }

    fn config(&self, url: &str) -> Result<Config> {
        let variables = self.variables.clone();
        let environment = Environment {
            variables: Box::new(move |name| {
                let found = variables.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| value.into())
            }),
            home: Some(self.home.path().to_owned()),
            socket_folder: PathBuf::from("/sockets"),
            service_folders: vec![self.home.path().join("system")],
            user: Some("os-user".to_owned()),
        };
        let config = Config::in_environment(url, &environment);
        let shown = match &config {
            Ok(config) => format!("{config:?}"),
            Err(error) => format!("{error} {error:?}"),
        };
        assert!(!shown.contains(SECRET), "{shown}");
        config
    }

    fn rejected(&self, url: &str) -> Error {
        self.config(url).err().unwrap_or_else(|| panic!("{url} was accepted"))
    }
}

fn set_mode(file: &Path, mode: u32) {
    fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
}

/// The hosts as `NAME:PORT`.
fn hosts(config: &Config) -> Vec<String> {
    let show = |host: &super::Host| match &host.address {
        HostAddress::Tcp { name, address: None } => format!("{name}:{}", host.port),
        HostAddress::Tcp { name, address: Some(address) } => {
            format!("{name}({address}):{}", host.port)
        }
        HostAddress::Unix(folder) => format!("{}:{}", folder.display(), host.port),
    };
    config.hosts.iter().map(show).collect()
}

fn passwords(config: &Config) -> Vec<Option<&str>> {
    let text =
        |password: &Vec<u8>| std::str::from_utf8(password).unwrap().to_owned().leak() as &str;
    config.hosts.iter().map(|host| host.password.as_ref().map(text)).collect()
}

#[test]
fn url_without_host_user_and_database_has_the_defaults_of_libpq() {
    let config = User::new().config("postgres://").unwrap();
    assert_eq!(hosts(&config), ["/sockets:5432"]);
    assert_eq!((&*config.session.user, &*config.session.database), ("os-user", "os-user"));
    assert_eq!(config.tls.encryption, Encryption::Prefer);
    let config = User::new().config("postgres:///db").unwrap();
    assert_eq!(hosts(&config), ["/sockets:5432"]);
    assert_eq!((&*config.session.user, &*config.session.database), ("os-user", "db"));
    let config = User::new().config("postgres://app@/").unwrap();
    assert_eq!((&*config.session.user, &*config.session.database), ("app", "app"));
}

#[test]
fn hosts_are_parsed_as_by_libpq() {
    for (url, expected) in [
        ("postgres://db.internal", vec!["db.internal:5432"]),
        ("postgresql://a:1,b,c:3/x", vec!["a:1", "b:5432", "c:3"]),
        ("postgres://[::1]:7,127.0.0.1", vec!["::1:7", "127.0.0.1:5432"]),
        ("postgres://%2Frun%2Fpg:7/x", vec!["/run/pg:7"]),
        ("postgres:///x?host=/run/pg&port=7", vec!["/run/pg:7"]),
        ("postgres://u@/x?host=%2Frun%2Fpg", vec!["/run/pg:5432"]),
        // A parameter overrides the address, one port applies to all hosts, and an empty host
        // selects the default.
        ("postgres://a:1/x?host=b,,c&port=7", vec!["b:7", "/sockets:7", "c:7"]),
        ("postgres:///x?hostaddr=10.0.0.1", vec!["10.0.0.1(10.0.0.1):5432"]),
        ("postgres://a,b/x?hostaddr=10.0.0.1,", vec!["a(10.0.0.1):5432", "b:5432"]),
        ("postgres://:7/x", vec!["/sockets:7"]),
    ] {
        assert_eq!(hosts(&User::new().config(url).unwrap()), expected, "{url}");
    }
    for (url, named) in [
        ("postgres://a,b/x?port=1,2,3", "3 ports"),
        ("postgres://a,b/x?hostaddr=10.0.0.1", "hostaddr"),
        ("postgres:///x?hostaddr=db.internal", "hostaddr"),
        ("postgres://a:0/x", "port"),
        ("postgres://a:65536/x", "port"),
        ("postgres://[::1/x", "IPv6"),
        ("postgres:///x?host=a%00b", "NUL"),
        // libpq ends the host at the `/`, which would send the password to another server.
        ("postgres://db.internal/my@db", "%40"),
        ("postgres:///me@corp", "%40"),
        ("postgres://u:a/b@h/x", "%2F"),
    ] {
        let error = User::new().rejected(url);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        assert!(error.message().contains(named), "{url}: {error}");
    }
}

#[test]
fn url_overrides_service_overrides_environment_overrides_password_file() {
    let mut user = User::with(&[
        ("PGUSER", "variable"),
        ("PGDATABASE", "variable"),
        ("PGHOST", "variable"),
        ("PGPORT", "4"),
        ("PGPASSWORD", "from variable"),
        ("PGAPPNAME", "variable"),
    ]);
    user.write(".pgpass", "*:*:*:*:from file\n");
    user.write(".pg_service.conf", "[prod]\nuser=service\ndbname=service\npassword=from service\n");
    let config = user.config("postgres://url@/?service=prod&application_name=url").unwrap();
    assert_eq!((&*config.session.user, &*config.session.database), ("url", "service"));
    assert_eq!(hosts(&config), ["variable:4"]);
    assert_eq!(passwords(&config), [Some("from service")]);
    assert_eq!(config.session.server.get_application_name(), Some("url"));

    let config = user.config("postgres://url:from%20url@h:5/db?service=prod").unwrap();
    assert_eq!((hosts(&config), passwords(&config)), (vec!["h:5".into()], vec![Some("from url")]));
    let config = user.config("postgres:///").unwrap();
    assert_eq!((&*config.session.user, &*config.session.database), ("variable", "variable"));
    assert_eq!(passwords(&config), [Some("from variable")]);
    // An empty value in the URL selects the default and hides the other sources.
    let config = user.config("postgres:///?host=&user=&dbname=&password=&service=prod").unwrap();
    assert_eq!((&*config.session.user, &*config.session.database), ("os-user", "os-user"));
    assert_eq!(hosts(&config), ["/sockets:4"]);
    assert_eq!(passwords(&config), [Some("from file")]);
    // An empty variable counts as unset.
    user.variables = vec![("PGHOST", String::new()), ("PGPASSWORD", String::new())];
    let config = user.config("postgres:///").unwrap();
    assert_eq!(hosts(&config), ["/sockets:5432"]);
    assert_eq!(passwords(&config), [Some("from file")]);
}

#[test]
fn from_url_alone_reads_neither_environment_nor_files() {
    // The test cannot control the variables of this process, so it checks the empty environment.
    let none = Environment::none();
    assert!(none.home.is_none() && none.service_folders.is_empty());
    assert_eq!(none.variable("PATH").unwrap(), None);
    let error = Config::from_url_alone("postgres://h/?service=prod").unwrap_err();
    assert!(error.message().contains("prod"), "{error}");
}

#[test]
fn environment_variables_set_their_parameters() {
    let user = User::with(&[
        ("PGHOSTADDR", "10.0.0.1"),
        ("PGOPTIONS", "-c work_mem=1MB"),
        ("PGCONNECT_TIMEOUT", "7"),
        ("PGTARGETSESSIONATTRS", "prefer-standby"),
        ("PGLOADBALANCEHOSTS", "random"),
        ("PGSSLMODE", "verify-full"),
        ("PGSSLROOTCERT", "/root.pem"),
        ("PGSSLCERT", "/client.pem"),
        ("PGSSLKEY", "/client.key"),
        ("PGSSLCRL", "/revoked.pem"),
        ("PGSSLSNI", "0"),
        ("PGSSLMINPROTOCOLVERSION", "TLSv1.3"),
    ]);
    let config = user.config("postgres:///").unwrap();
    assert_eq!(hosts(&config), ["10.0.0.1(10.0.0.1):5432"]);
    assert_eq!(config.session.server.get_options(), Some("-c work_mem=1MB"));
    assert_eq!(config.connect_timeout, Duration::from_secs(7));
    assert_eq!(config.session.attrs, SessionAttrs::PreferStandby);
    assert!(config.session.shuffles_hosts);
    assert_eq!(config.tls.encryption, Encryption::VerifyFull);
    assert_eq!(config.tls.root_cert, Some("/root.pem".into()));
    assert_eq!(config.tls.revoked, Some("/revoked.pem".into()));
    let client = config.tls.client.unwrap();
    assert_eq!(client.certificate, PathBuf::from("/client.pem"));
    assert_eq!(client.key, Some("/client.key".into()));
    assert!(!config.tls.sends_name);
    assert_eq!(config.tls.versions, [&TLS13]);
    for (variables, expected) in [
        (&[("PGREQUIRESSL", "1")][..], Encryption::Require),
        (&[("PGREQUIRESSL", "0")], Encryption::Prefer),
        (&[("PGREQUIRESSL", "1"), ("PGSSLMODE", "disable")], Encryption::Disable),
    ] {
        let config = User::with(variables).config("postgres://h").unwrap();
        assert_eq!(config.tls.encryption, expected, "{variables:?}");
    }
    let config = User::new().config("postgres://h/?ssl=true").unwrap();
    assert_eq!(config.tls.encryption, Encryption::Require);
}

#[test]
fn timeouts_have_the_units_of_libpq() {
    let url = "postgres://h/?connect_timeout=0&tcp_user_timeout=1500&keepalives_idle=5\
               &keepalives_interval=2&keepalives_count=3";
    let config = User::new().config(url).unwrap();
    assert_eq!(config.connect_timeout, Duration::MAX);
    assert_eq!(config.session.socket.user_timeout, Duration::from_millis(1500));
    let keepalive = format!("{:?}", config.session.socket.keepalive.unwrap());
    assert!(
        keepalive.contains("time: Some(5s), interval: Some(2s), retries: Some(3)"),
        "{keepalive}"
    );
    let config = User::new().config("postgres://h/?keepalives=0").unwrap();
    assert!(config.session.socket.keepalive.is_none());
}

#[test]
fn invalid_value_is_hidden_and_its_source_is_named() {
    let service = User::new();
    service.write(".pg_service.conf", "[prod]\nsslmode=s3cret\n");
    for (user, url, named) in [
        (User::new(), "postgres://h/?sslmode=s3cret", "option `sslmode` of the PostgreSQL URL"),
        (User::with(&[("PGSSLMODE", SECRET)]), "postgres://h", "variable PGSSLMODE"),
        (User::with(&[("PGPORT", SECRET)]), "postgres://h", "variable PGPORT"),
        (service, "postgres://h/?service=prod", "`sslmode` of the service `prod` in "),
        (User::new(), "postgres://h/?sslmode=allow", "write `disable`, `prefer`"),
        (User::new(), "postgres://h/?target_session_attrs=s3cret", "prefer-standby"),
        (User::new(), "postgres://h/?channel_binding=s3cret", "channel_binding"),
        (User::new(), "postgres://u@h/?pol_size=3", "`pol_size`"),
        (User::new(), "postgres://u:s3cret?b=1", "libpq"),
        (User::new(), "postgres://u:a?s3cret=1", "libpq"),
        (User::new(), "postgres://h/?user=a%ffb", "not UTF-8"),
        (User::new(), "postgres:h", "postgres://"),
        (User::new(), "host=h", "postgres://"),
    ] {
        let error = user.rejected(url);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        assert!(error.message().contains(named), "{url}: {error}");
    }
}

#[test]
fn unsupported_parameter_is_rejected_from_every_source() {
    for (name, variable, value) in [
        ("sslcrldir", Some("PGSSLCRLDIR"), "/revoked"),
        ("requirepeer", Some("PGREQUIREPEER"), "postgres"),
        ("require_auth", Some("PGREQUIREAUTH"), "scram-sha-256"),
        ("gssencmode", Some("PGGSSENCMODE"), "require"),
        ("min_protocol_version", Some("PGMINPROTOCOLVERSION"), "3.2"),
        ("sslpassword", None, SECRET),
        ("replication", None, "database"),
        ("client_encoding", None, "LATIN1"),
        ("oauth_client_secret", None, SECRET),
    ] {
        let service = User::new();
        service.write(".pg_service.conf", &format!("[prod]\n{name}={value}\n"));
        let mut cases = vec![
            (User::new(), format!("postgres://h/?{name}={value}")),
            (service, "postgres://h/?service=prod".to_owned()),
        ];
        cases.extend(variable.map(|v| (User::with(&[(v, value)]), "postgres://h".to_owned())));
        for (user, url) in cases {
            let error = user.rejected(&url);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}: {error}");
            let shown = error.message();
            assert!(shown.contains(name) || variable.is_some_and(|v| shown.contains(v)), "{error}");
        }
        assert!(User::new().config(&format!("postgres://h/?{name}=")).is_ok(), "{name}");
    }
    let accepted =
        "postgres://h/?gssencmode=prefer&client_encoding=UTF8&sslcompression=0&krbsrvname=x";
    assert!(User::new().config(accepted).is_ok());
}

#[test]
fn password_file_matches_by_libpqs_rules() {
    let found = |lines: &str, url: &str| {
        let user = User::new();
        user.write(".pgpass", lines);
        let config = user.config(url).unwrap();
        config.hosts[0].password.clone().map(|password| String::from_utf8(password).unwrap())
    };
    let url = "postgres://app@db:6432/state";
    for (lines, expected) in [
        ("db:6432:state:app:pw", Some("pw")),
        ("db:6432:state:app:pw\r\n", Some("pw")),
        ("*:*:*:*:pw", Some("pw")),
        // The first matching line applies.
        (
            "# db:6432:state:app:no\n\ndb:*:*:other:no\ndb:*:*:app:first\n*:*:*:*:second",
            Some("first"),
        ),
        ("db:6432:state:app:a\\:b\\\\c", Some("a:b\\c")),
        ("db:6432:state:app:pw:what follows is ignored", Some("pw")),
        ("db:5432:state:app:no", None),
        ("d:6432:state:app:no", None),
        ("db2:6432:state:app:no", None),
        ("d*:6432:state:app:no", None),
        ("db:6432:state:app:", None),
        ("db:*:*:app:\n*:*:*:*:of-another-server", None),
        ("db:6432:state:app", None),
        ("", None),
    ] {
        assert_eq!(found(lines, url).as_deref(), expected, "{lines}");
    }
    let odd = "postgres://a%3Ab%5Cc@%5B::1%5D/x".replace("%5B::1%5D", "[::1]");
    assert_eq!(found("\\:\\:1:*:x:a\\:b\\\\c:pw", &odd).as_deref(), Some("pw"));
    // The default socket folder matches `localhost`; any other folder matches its path.
    assert_eq!(found("localhost:5432:x:app:pw", "postgres://app@/x").as_deref(), Some("pw"));
    let other = "postgres://app@/x?host=/run/pg";
    assert_eq!(found("localhost:*:*:*:no\n/run/pg:*:*:*:pw", other).as_deref(), Some("pw"));
}

#[test]
fn password_file_elsewhere_has_a_password_for_each_host() {
    let mut user = User::new();
    let file = user.write("elsewhere", "a:*:*:*:for a\nb:*:*:*:for b\n");
    let url = "postgres://app@a,b,c/x";
    let expected = [Some("for a"), Some("for b"), None];
    let named = format!("{url}?passfile={}", file.display());
    assert_eq!(passwords(&user.config(&named).unwrap()), expected);
    user.variables = vec![("PGPASSFILE", file.to_str().unwrap().to_owned())];
    let config = user.config(url).unwrap();
    assert_eq!(passwords(&config), expected);
    let note = config.hosts[2].password_note.as_ref().unwrap();
    assert!(note.contains("no line for c:5432"), "{note}");
}

#[test]
fn password_file_readable_by_others_is_ignored() {
    let user = User::new();
    let file = user.write(".pgpass", "*:*:*:*:pw");
    for mode in [0o640, 0o604, 0o644] {
        set_mode(&file, mode);
        let config = user.config("postgres://app@h").unwrap();
        assert_eq!(passwords(&config), [None], "{mode:o}");
        let note = config.hosts[0].password_note.as_ref().unwrap();
        assert!(note.contains("chmod 0600"), "{note}");
    }
    set_mode(&file, 0o400);
    assert_eq!(passwords(&user.config("postgres://app@h").unwrap()), [Some("pw")]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert_eq!(passwords(&user.config("postgres://app@h").unwrap()), [None]);
}

#[test]
fn service_is_looked_up_in_user_file_then_system_file() {
    let mut user = User::new();
    let host = |user: &User, url: &str| hosts(&user.config(url).unwrap()).remove(0);
    user.write("system/pg_service.conf", "[a]\nhost=system\n[b]\nhost=system\n[d]\nhost=system\n");
    user.write(
        ".pg_service.conf",
        "# comment\n\n  [a]  \n  host=own  \nhost=late\nport=7\n[b]x\n[c]\n",
    );
    assert_eq!(host(&user, "postgres://?service=a"), "own:7");
    // A section in the user's file hides the system's section, even an empty one.
    assert_eq!(host(&user, "postgres://?service=b"), "/sockets:5432");
    assert_eq!(host(&user, "postgres://?service=c"), "/sockets:5432");
    assert_eq!(host(&user, "postgres://?service=d"), "system:5432");
    user.variables = vec![("PGSERVICE", "a".to_owned())];
    assert_eq!(host(&user, "postgres://"), "own:7");
    assert_eq!(host(&user, "postgres://?service=d"), "system:5432");
    let named = user.write("named", "[a]\nhost=named\n");
    user.variables.push(("PGSERVICEFILE", named.to_str().unwrap().to_owned()));
    assert_eq!(host(&user, "postgres://"), "named:5432");
    let folder = user.write("other/pg_service.conf", "[d]\nhost=other\n");
    let folder = folder.parent().unwrap().to_str().unwrap().to_owned();
    user.variables.push(("PGSYSCONFDIR", folder));
    assert_eq!(host(&user, "postgres://?service=d"), "other:5432");
    let error = user.rejected("postgres://?service=e");
    assert!(error.message().contains("no service `e` is defined: add a section [e] to"), "{error}");
    let error = user.rejected("postgres://?service=a&servicefile=/no/such");
    assert!(error.message().contains("/no/such does not exist"), "{error}");
    let error = User::new().rejected("postgres://?service=a");
    assert!(error.message().contains("PGSERVICEFILE"), "{error}");
}

#[test]
fn service_file_error_names_the_line() {
    for (text, line, named) in [
        ("[a]\nhost=h\nhost\n", 3, "no `=`"),
        ("[a]\nschema=x\n", 2, "libpq's parameters"),
        ("[a]\nhost = h\n", 2, "libpq's parameters"),
        ("[a]\nservice=b\n", 2, "another"),
        ("[a]\nldap://directory/x\n", 2, "LDAP"),
    ] {
        let user = User::new();
        user.write(".pg_service.conf", text);
        let error = user.rejected("postgres://?service=a");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text}");
        for said in [&format!("line {line} of the service file "), named] {
            assert!(error.message().contains(said), "{text}: {error}");
        }
        // Other sections are not read.
        user.write(".pg_service.conf", &format!("[b]\nhost=h\n{text}"));
        assert!(user.config("postgres://?service=b").is_ok(), "{text}");
    }
}

#[test]
fn files_in_dot_postgresql_are_the_default_certificates() {
    let user = User::new();
    let config = user.config("postgres://h").unwrap();
    assert!(config.tls.root_cert.is_none() && config.tls.client.is_none());
    let root = user.write(".postgresql/root.crt", "");
    let revoked = user.write(".postgresql/root.crl", "");
    let certificate = user.write(".postgresql/postgresql.crt", "");
    // A missing key is an error only if a connection may be encrypted.
    let connector = |url| Connector::new(user.config(url).unwrap());
    let error = connector("postgres://h").err().unwrap();
    assert!(error.message().contains("has no private key"), "{error}");
    assert!(
        connector("postgres:///x").is_ok() && connector("postgres://h/?sslmode=disable").is_ok()
    );
    assert!(user.config("postgres://h/?sslcertmode=disable").unwrap().tls.client.is_none());
    let key = user.write(".postgresql/postgresql.key", "");
    let config = user.config("postgres://h").unwrap();
    assert_eq!(config.tls.root_cert, Some(root));
    assert_eq!(config.tls.revoked, Some(revoked));
    let client = config.tls.client.unwrap();
    assert_eq!((client.certificate, client.key), (certificate, Some(key)));
    let config = user.config("postgres://h/?sslkey=/other.key&sslrootcert=/ca.pem").unwrap();
    assert_eq!(config.tls.root_cert, Some("/ca.pem".into()));
    assert_eq!(config.tls.client.unwrap().key, Some("/other.key".into()));
}

#[test]
fn sslrootcert_system_means_verify_full() {
    let user = User::new();
    user.write(".postgresql/root.crt", "");
    let config = user.config("postgres://h/?sslrootcert=system").unwrap();
    assert_eq!((config.tls.encryption, config.tls.root_cert), (Encryption::VerifyFull, None));
    let error = user.rejected("postgres://h/?sslrootcert=system&sslmode=verify-ca");
    assert!(error.message().contains("verify-full"), "{error}");
}

#[test]
fn direct_tls_needs_an_sslmode_that_requires_tls() {
    for mode in ["require", "verify-ca", "verify-full"] {
        let url = format!("postgres://h/?sslnegotiation=direct&sslmode={mode}");
        assert!(User::new().config(&url).is_ok(), "{mode}");
    }
    for url in ["postgres://h/?sslmode=prefer", "postgres://h/?sslmode=disable", "postgres://h"] {
        let error = User::with(&[("PGSSLNEGOTIATION", "direct")]).rejected(url);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{url}");
        assert!(error.message().contains("PGSSLNEGOTIATION"), "{error}");
    }
}

#[test]
fn tls_version_parameters_limit_the_versions() {
    for (options, expected) in [
        ("", vec![&TLS12, &TLS13]),
        ("ssl_min_protocol_version=TLSv1", vec![&TLS12, &TLS13]),
        ("ssl_max_protocol_version=TLSv1.2", vec![&TLS12]),
        ("ssl_min_protocol_version=TLSv1.3", vec![&TLS13]),
    ] {
        let config = User::new().config(&format!("postgres://h/?{options}")).unwrap();
        assert_eq!(config.tls.versions, expected, "{options}");
    }
    for options in [
        "ssl_max_protocol_version=TLSv1.1",
        "ssl_min_protocol_version=SSLv3",
        "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
    ] {
        let error = User::new().rejected(&format!("postgres://h/?{options}"));
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{options}");
    }
}
