//! The configuration file: the choice of the store, and the use of its password, which no message
//! shows.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Ran, Sandbox};

/// A password with characters that are special in a URL.
const SECRET: &str = "s3cret/p@ss:w?rd#%41&x=y é";

const FILE: &str = r#"
default_profile = "dev"

[profiles.dev]
store = "redb:dev.redb"

[profiles.other]
store = "redb:sub/other.redb?durability=relaxed"
timeout = "1m 30s"
"#;

/// Runs the tool with environment variables.
fn run(sandbox: &Sandbox, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = sandbox.command(arguments);
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

/// Returns the output of `config show --json`.
#[track_caller]
fn shown(sandbox: &Sandbox, variables: &[(&str, &str)], options: &[&str]) -> Value {
    let ran = run(sandbox, variables, &[&["config", "show", "--json"], options].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[test]
fn store_settings_take_precedence_in_the_documented_order() {
    let sandbox = Sandbox::new();
    let effective = |variables: &[(&str, &str)], options: &[&str]| {
        let store = shown(&sandbox, variables, options)["store"].clone();
        let text = |name: &str| store[name].as_str().unwrap_or("-").to_owned();
        let url = text("url").rsplit(['/', '\\', ':']).next().unwrap().to_owned();
        [url, text("named_by"), text("profile_named_by")].join(" ")
    };
    assert_eq!(effective(&[], &[]), "cubbyhole.redb default -");
    sandbox.configure(FILE);
    assert_eq!(effective(&[], &[]), "dev.redb profile default_profile");
    let profile = ("CUBBYHOLE_PROFILE", "other");
    let other = "other.redb?durability=relaxed profile CUBBYHOLE_PROFILE";
    assert_eq!(effective(&[profile], &[]), other);
    assert_eq!(effective(&[profile], &["--profile", "dev"]), "dev.redb profile --profile");
    let store = ("CUBBYHOLE_STORE", "redb:env.redb");
    assert_eq!(effective(&[profile, store], &[]), "env.redb CUBBYHOLE_STORE -");
    let dev = "dev.redb profile --profile";
    assert_eq!(effective(&[profile, store], &["--profile", "dev"]), dev);
    let named = &["--store", "redb:option.redb"];
    assert_eq!(effective(&[profile, store], named), "option.redb --store -");
    let named = &["--store-file", "what?.redb"];
    assert_eq!(effective(&[profile, store], named), "what%3F.redb --store-file -");
    // An empty variable counts as unset.
    let empty = [("CUBBYHOLE_PROFILE", ""), ("CUBBYHOLE_STORE", ""), ("CUBBYHOLE_CONFIG", "")];
    assert_eq!(effective(&empty, &[]), "dev.redb profile default_profile");
}

#[test]
fn commands_use_the_store_of_the_profile() {
    let sandbox = Sandbox::new();
    let file = sandbox.configure(FILE);
    let folder = file.parent().unwrap();
    std::fs::create_dir(folder.join("sub")).unwrap();
    sandbox.ok(&["put", "acme", "k", "of dev"]);
    sandbox.ok(&["put", "acme", "k", "of other", "--profile", "other"]);
    // Relative paths start at the folder of the file.
    assert!(folder.join("dev.redb").exists() && folder.join("sub/other.redb").exists());
    assert_eq!(sandbox.files(), [".config"]);
    assert_eq!(sandbox.ok(&["get", "acme", "k"]), "of dev");
    let by_variable = run(&sandbox, &[("CUBBYHOLE_PROFILE", "other")], &["get", "acme", "k"]);
    assert_eq!(by_variable.stdout, b"of other");
    sandbox.ok(&["put", "acme", "k", "of another", "--store", "redb:another.redb"]);
    let by_store = [("CUBBYHOLE_STORE", "redb:another.redb")];
    assert_eq!(run(&sandbox, &by_store, &["get", "acme", "k"]).stdout, b"of another");
    // A profile can be the target of a copy.
    sandbox.ok(&["put", "acme", "only-here", "v"]);
    let copy = ["copy", "acme", "--to", "other", "--json"];
    assert_eq!(sandbox.run(&copy).code, 0, "{:?}", sandbox.run(&copy));
    assert_eq!(sandbox.ok(&["get", "acme", "only-here", "--profile", "other"]), "v");
    let message = sandbox.fails(2, &["copy", "acme", "--to", "othr"]);
    assert!(message.contains("dev, other") && message.contains("redb:othr"), "{message}");
    let message = sandbox.fails(2, &["copy", "acme", "--to", "s3cret@host"]);
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn store_and_profile_together_are_a_usage_error() {
    let sandbox = Sandbox::new();
    sandbox.configure(FILE);
    for arguments in [
        &["tenants", "--store", "memory:", "--profile", "dev"][..],
        &["--store", "memory:", "tenants", "--profile", "dev"],
        &["--profile", "dev", "config", "show", "--store", "memory:"],
        &["--store-file", "a.redb", "tenants", "--profile", "dev"],
        &["tenants", "--store-file", "a.redb", "--store", "memory:"],
    ] {
        let message = sandbox.fails(2, arguments);
        assert!(message.contains("--store-file and --profile each name"), "{message}");
    }
}

#[test]
fn profile_option_takes_precedence_over_the_environment() {
    let sandbox = Sandbox::new();
    let file = sandbox.configure(FILE);
    let store = [("CUBBYHOLE_STORE", "redb:env.redb")];
    let ran = run(&sandbox, &store, &["put", "acme", "k", "v", "--profile", "dev"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(file.with_file_name("dev.redb").exists());
    assert_eq!(sandbox.files(), [".config"]);
    // CUBBYHOLE_STORE takes precedence over CUBBYHOLE_PROFILE.
    let both = [store[0], ("CUBBYHOLE_PROFILE", "dev")];
    assert_eq!(run(&sandbox, &both, &["put", "acme", "k", "v"]).code, 0);
    assert_eq!(sandbox.files(), [".config", "env.redb"]);
}

#[test]
fn profile_sets_the_timeout_unless_the_option_does() {
    let sandbox = Sandbox::new();
    sandbox.configure("[profiles.hasty]\nstore = \"redb:h.redb\"\ntimeout = \"1ns\"\n");
    let put = ["put", "acme", "k", "v", "--profile", "hasty"];
    assert_eq!(sandbox.run(&put).code, 4);
    sandbox.ok(&[&put[..], &["--timeout", "1m"]].concat());
    // Other profiles have no effect.
    sandbox.ok(&["put", "acme", "k", "v"]);
    assert_eq!(shown(&sandbox, &[], &["--profile", "hasty"])["timeout"], "1ns");
    let given = shown(&sandbox, &[], &["--profile", "hasty", "--timeout", "90s"]);
    assert_eq!(given["timeout"], "1m 30s");
}

#[test]
fn configuration_file_is_read_from_the_named_path() {
    let sandbox = Sandbox::new();
    sandbox.configure(FILE);
    sandbox.write("a.toml", "[profiles.p]\nstore = \"redb:a.redb\"\n");
    sandbox.write("b.toml", "[profiles.p]\nstore = \"redb:b.redb\"\n");
    let a = [("CUBBYHOLE_CONFIG", "a.toml")];
    let ran = run(&sandbox, &a, &["put", "acme", "k", "v", "--profile", "p"]);
    assert_eq!((ran.code, sandbox.files().contains(&"a.redb".to_owned())), (0, true), "{ran:?}");
    let put = ["--config", "b.toml", "put", "acme", "k", "v", "--profile", "p"];
    let ran = run(&sandbox, &a, &put);
    assert_eq!((ran.code, sandbox.files().contains(&"b.redb".to_owned())), (0, true), "{ran:?}");
    assert_eq!(shown(&sandbox, &a, &[])["file"]["named_by"], "CUBBYHOLE_CONFIG");
    assert_eq!(shown(&sandbox, &a, &["--config", "b.toml"])["file"]["named_by"], "--config");

    for (variables, options, by) in [
        (&[][..], &["--config", "no.toml"][..], "--config"),
        (&[("CUBBYHOLE_CONFIG", "no.toml")], &[], "CUBBYHOLE_CONFIG"),
    ] {
        for command in [&["tenants"][..], &["config", "show"]] {
            let ran = run(&sandbox, variables, &[command, options].concat());
            assert!(ran.code == 2 && ran.stderr.contains("no.toml"), "{ran:?}");
            assert!(ran.stderr.contains(by), "{ran:?}");
        }
    }
    // The file is only read by commands that need it.
    sandbox.ok(&["put", "acme", "k", "v", "--store", "redb:x.redb", "--config", "no.toml"]);
    sandbox.ok(&["completions", "bash", "--config", "no.toml"]);
}

#[test]
fn unknown_profile_error_lists_the_known_profiles() {
    let sandbox = Sandbox::new();
    let message = sandbox.fails(2, &["tenants", "--profile", "prod"]);
    assert!(message.contains("`prod`") && message.contains("config.toml"), "{message}");
    sandbox.configure(FILE);
    let message = sandbox.fails(2, &["tenants", "--profile", "prod"]);
    assert!(message.contains("it has dev, other"), "{message}");
    let ran = run(&sandbox, &[("CUBBYHOLE_PROFILE", "prod")], &["tenants"]);
    assert!(ran.code == 2 && ran.stderr.contains("by CUBBYHOLE_PROFILE"), "{ran:?}");
    let message = sandbox.fails(2, &["tenants", "--profile", "u:s3cret@h"]);
    assert!(!message.contains("s3cret"), "{message}");
}

/// A wrong file, a part of the expected message, and the expected line number.
const MISTAKES: [(&str, &str, u32); 27] = [
    ("default_profile", "invalid TOML", 1),
    ("[profiles.a]\nstore = s3cret", "invalid TOML", 2),
    ("[profiles.a]\nstore = \"s3cret", "invalid TOML", 2),
    ("[profiles.a]\nstore = \"redb:a\"\nstore = \"s3cret\"", "invalid TOML", 3),
    ("\n\nprofile = \"s3cret\"", "`profile`", 3),
    ("\"s3cret ?\" = 1", "default_profile", 1),
    ("profiles = \"s3cret\"", "[profiles.NAME]", 1),
    ("[profiles]\na = \"s3cret\"", "[profiles.a]", 2),
    ("[profiles.\"redis://s3cret\"]\nstore = \"redb:a\"", "name of a profile", 1),
    ("[profiles.\"\"]\nstore = \"redb:a\"", "name of a profile", 1),
    ("[profiles.\"-a\"]\nstore = \"redb:a\"", "name of a profile", 1),
    ("default_profile = \"s3cret\"\n[profiles.a]\nstore = \"redb:a\"", "there are a", 1),
    ("default_profile = \"a\"", "there are none", 1),
    ("default_profile = 3", "quotation marks", 1),
    ("[profiles.a]\ntimeout = \"1s\"", "no `store`", 1),
    ("[profiles.a]\nstore = 3", "quotation marks", 2),
    ("[profiles.a]\nstore = \"redb:s3cret\\r\"", "control character", 2),
    ("[profiles.a]\nstore = \"redb:a\"\ntimeout = \"s3cret\"", "\"30s\"", 3),
    ("[profiles.a]\nstore = \"redb:a\"\ntimeout = \"0s\"", "greater than zero", 3),
    ("[profiles.a]\nstore = \"redb:a\"\ntimeout = 30", "quotation marks", 3),
    ("[profiles.a]\nstore = \"redb:a\"\npassword = \"s3cret\"", "`password_env`", 3),
    (
        "[profiles.a]\nstore = \"redis://h\"\npassword_env = \"s3cret!\"",
        "name of an environment variable",
        3,
    ),
    ("[profiles.a]\nstore = \"redis://h\"\npassword_file = \"\"", "path of a file", 3),
    (
        "[profiles.a]\npassword_env = \"A\"\nstore = \"redis://h\"\npassword_file = \"b\"",
        "both name the password",
        4,
    ),
    (
        "[profiles.a]\nstore = \"redis://:s3cret@h\"\npassword_env = \"A\"",
        "already contains a password",
        3,
    ),
    ("[profiles.a]\nstore = \"redb:s3cret\"\npassword_env = \"A\"", "names no server", 3),
    ("[profiles.a]\nstore = \"postgres://s3cret\"\npassword_file = \"b\"", "USER@HOST", 3),
];

#[test]
fn configuration_error_names_the_line_and_no_value() {
    let sandbox = Sandbox::new();
    for (text, part, line) in MISTAKES {
        sandbox.configure(text);
        let message = sandbox.fails(2, &["tenants"]);
        let at = format!("config.toml, line {line}: ");
        assert!(message.contains(&at) && message.contains(part), "{text}: {message}");
        assert!(!message.contains("s3cret"), "{message}");
        assert_eq!(sandbox.fails(2, &["config", "show"]), message);
        // Commands that do not use a profile do not read the file.
        sandbox.ok(&["completions", "bash"]);
        sandbox.ok(&["put", "acme", "k", "v", "--store", "redb:x.redb"]);
    }
    std::fs::write(sandbox.configure(""), [0xff]).unwrap();
    assert!(sandbox.fails(2, &["tenants"]).contains("config.toml"));
}

/// Answers the received bytes. Returns whether more bytes are expected.
type Answer = fn(&[u8], &mut TcpStream) -> bool;

/// Starts a server for one connection. It reads while `answer` returns true, and returns all
/// received bytes.
fn serve(answer: Answer) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 4096];
        while answer(&received, &mut stream) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => received.extend_from_slice(&buffer[..read]),
            }
        }
        received
    });
    (port, server)
}

fn holds(received: &[u8], text: &str) -> bool {
    received.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Reads until the client has authenticated.
fn redis(received: &[u8], _: &mut TcpStream) -> bool {
    !holds(received, "AUTH") || !received.ends_with(b"\r\n")
}

/// Requests a password in clear text.
fn postgres(received: &[u8], stream: &mut TcpStream) -> bool {
    let begun = received.len() >= 4;
    if begun && !holds(received, SECRET) {
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
    }
    !holds(received, SECRET)
}

#[test]
fn password_reaches_the_server_and_no_message() {
    let sandbox = Sandbox::new();
    sandbox.write("secret", format!("{SECRET}\n"));
    sandbox.write("windows", format!("{SECRET}\r\n"));
    let (unix, windows, cut) =
        (format!("{SECRET}\n"), format!("{SECRET}\r\n"), format!("{SECRET}\r"));
    let variables = [
        ("SECRET", SECRET),
        ("SECRET_LF", &unix),
        ("SECRET_CRLF", &windows),
        // An environment file with Windows line ends leaves a carriage return.
        ("SECRET_CR", &cut),
    ];
    let servers: [(&str, Answer); 2] = [
        ("redis://app@127.0.0.1:PORT/0?connect_timeout=4", redis),
        ("postgres://app@127.0.0.1:PORT/state?sslmode=disable", postgres),
    ];
    for (url, answer) in servers {
        for source in [
            "password_env = \"SECRET\"",
            "password_env = \"SECRET_LF\"",
            "password_env = \"SECRET_CRLF\"",
            "password_env = \"SECRET_CR\"",
            "password_file = \"secret\"",
            "password_file = \"windows\"",
        ] {
            let (port, server) = serve(answer);
            let url = url.replace("PORT", &port.to_string());
            sandbox.write("c.toml", format!("[profiles.p]\nstore = \"{url}\"\n{source}\n"));
            let call =
                ["tenants", "--config", "c.toml", "--profile", "p", "--timeout", "5s", "-vvv"];
            let ran = run(&sandbox, &variables, &call);
            // If the tool did not connect, this ends the server.
            drop(TcpStream::connect(("127.0.0.1", port)));
            let received = server.join().unwrap();
            // The complete password without the line end, in the format of each protocol.
            let whole = [format!("${}\r\n{SECRET}\r\n", SECRET.len()), format!("{SECRET}\0")];
            let shown = String::from_utf8_lossy(&received);
            assert!(whole.iter().any(|text| holds(&received, text)), "{url}: {shown}: {ran:?}");
            assert_ne!(ran.code, 0, "{ran:?}");
            assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
            assert!(ran.stderr.contains("read the configuration file"), "{ran:?}");
        }
    }
}

#[test]
fn unreachable_server_is_reported_without_the_password() {
    let sandbox = Sandbox::new();
    for url in ["redis://app@127.0.0.1:1", "postgres://app@127.0.0.1:1/state"] {
        sandbox.configure(&format!("[profiles.p]\nstore = \"{url}\"\npassword_env = \"SECRET\"\n"));
        let ran = run(&sandbox, &[("SECRET", "s3cret")], &["tenants", "--profile", "p"]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.stderr.contains("127.0.0.1:1") && ran.stderr.contains("`p`"), "{ran:?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    }
}

#[test]
fn missing_password_fails_only_commands_that_need_it() {
    let sandbox = Sandbox::new();
    sandbox.write("empty", "\n");
    sandbox.write("binary", [0xff, 0xfe]);
    for (source, parts) in [
        ("password_env = \"SECRET\"", ["`p`", "SECRET, which is not set"]),
        ("password_file = \"no-such\"", ["no-such", "cannot be read"]),
        ("password_file = \"empty\"", ["empty", "which is empty"]),
        ("password_file = \"binary\"", ["binary", "not UTF-8"]),
    ] {
        let text = format!(
            "[profiles.p]\nstore = \"redis://127.0.0.1:1\"\n{source}\n\
             [profiles.q]\nstore = \"redb:q.redb\"\n"
        );
        sandbox.write("c.toml", text);
        let message = sandbox.fails(2, &["tenants", "--config", "c.toml", "--profile", "p"]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        sandbox.ok(&["put", "acme", "k", "v", "--config", "c.toml", "--profile", "q"]);
        sandbox.ok(&["completions", "bash", "--config", "c.toml", "--profile", "p"]);
        let set = ["empty", "binary"].iter().any(|file| source.contains(file));
        let shown = shown(&sandbox, &[], &["--config", "c.toml", "--profile", "p"]);
        assert_eq!(shown["store"]["password"]["is_set"], set, "{shown}");
    }
}

#[cfg(unix)]
#[test]
fn config_show_json_is_exact_and_without_secrets() {
    use std::os::unix::fs::PermissionsExt;

    let sandbox = Sandbox::new();
    let nothing = shown(&sandbox, &[], &["--timeout", "5s"]);
    let default_path = sandbox.path(".config/cubbyhole/config.toml");
    let expected = json!({
        "file": {"path": default_path, "found": false, "named_by": "platform"},
        "store": {
            "url": "redb:cubbyhole.redb", "named_by": "default",
            "profile": null, "profile_named_by": null, "password": null,
        },
        "timeout": "5s", "layers": [], "default_profile": null, "profiles": [], "warnings": [],
    });
    assert_eq!(nothing, expected);

    let file = sandbox.configure(
        "default_profile = \"prod\"\n\
         [profiles.prod]\nstore = \"postgres://app@db/state?schema=x\"\n\
         password_env = \"SECRET\"\ntimeout = \"30s\"\n\
         [profiles.prod.layers]\nretry = true\nscope = \"acme\"\n\
         encryption = { key_env = \"KEYS\", tenant_keys = \"redis://:s3cret@k\" }\n\
         [profiles.cache]\nstore = \"rediss://app@cache\"\npassword_file = \"cache.password\"\n\
         [profiles.old]\nstore = \"postgres://app:s3cret@db/state?password=s3cret\"\n",
    );
    let password_file = file.with_file_name("cache.password");
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
    let prod = json!({"from": "environment", "name": "SECRET", "is_set": true});
    let expected = json!({
        "file": {"path": file, "found": true, "named_by": "platform"},
        "store": {
            "url": "postgres://app@db/state?schema=x", "named_by": "profile",
            "profile": "prod", "profile_named_by": "default_profile", "password": prod,
        },
        "timeout": "30s",
        "layers": ["scope", "retry", "encryption"],
        "default_profile": "prod",
        "profiles": [
            {
                "name": "cache", "store": "rediss://app@cache", "timeout": null, "layers": [],
                "password": {"from": "file", "name": password_file, "is_set": false},
            },
            {
                "name": "old", "store": "postgres://app:***@db/state?password=***",
                "timeout": null, "password": null, "layers": [],
            },
            {
                "name": "prod", "store": "postgres://app@db/state?schema=x",
                "timeout": "30s", "password": prod, "layers": ["scope", "retry", "encryption"],
            },
        ],
        "warnings": [],
    });
    let secret = [("SECRET", "s3cret")];
    assert_eq!(shown(&sandbox, &secret, &[]), expected);

    // Other users can read the file now.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let warned = shown(&sandbox, &secret, &[])["warnings"].clone();
    let warning = warned[0].as_str().unwrap();
    assert!(warning.contains("profile old") && warning.contains("chmod 600"), "{warned}");
    let ran = run(&sandbox, &secret, &["config", "show", "--profile", "old"]);
    assert_eq!(ran.stderr, format!("warning: {warning}\n"));
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("store     postgres://app:***@db/state?password=***\n"), "{text}");
    assert!(text.contains("named by  the profile old, by --profile\n"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    let store = ["--store", "redis://u:s3cret@h?x=1&token=s3cret"];
    assert_eq!(shown(&sandbox, &[], &store)["store"]["url"], "redis://u:***@h?x=1&token=***");
}
