//! The configuration file: which store is in force, how its password comes to the server, and that
//! no message shows one.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Place, Ran};

/// Hard for a URL: each of these characters means something there.
const SECRET: &str = "s3cret/p@ss:w?rd#%41&x=y é";

const FILE: &str = r#"
default_profile = "dev"

[profiles.dev]
store = "redb:dev.redb"

[profiles.other]
store = "redb:sub/other.redb?durability=relaxed"
timeout = "1m 30s"
"#;

/// Runs the tool with variables of the environment.
fn run(place: &Place, variables: &[(&str, &str)], arguments: &[&str]) -> Ran {
    let mut command = place.command(arguments);
    Ran::of(command.envs(variables.iter().copied()).output().unwrap())
}

/// What `config show` answers.
#[track_caller]
fn shown(place: &Place, variables: &[(&str, &str)], options: &[&str]) -> Value {
    let ran = run(place, variables, &[&["config", "show", "--json"], options].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    serde_json::from_slice(&ran.stdout).unwrap()
}

#[test]
fn each_step_of_the_order_wins_over_those_after_it() {
    let place = Place::new();
    let in_force = |variables: &[(&str, &str)], options: &[&str]| {
        let store = shown(&place, variables, options)["store"].clone();
        let text = |name: &str| store[name].as_str().unwrap_or("-").to_owned();
        let url = text("url").rsplit(['/', '\\', ':']).next().unwrap().to_owned();
        [url, text("named_by"), text("profile_named_by")].join(" ")
    };
    assert_eq!(in_force(&[], &[]), "cubbyhole.redb default -");
    place.configure(FILE);
    assert_eq!(in_force(&[], &[]), "dev.redb profile default_profile");
    let profile = ("CUBBYHOLE_PROFILE", "other");
    let other = "other.redb?durability=relaxed profile CUBBYHOLE_PROFILE";
    assert_eq!(in_force(&[profile], &[]), other);
    assert_eq!(in_force(&[profile], &["--profile", "dev"]), "dev.redb profile --profile");
    let store = ("CUBBYHOLE_STORE", "redb:env.redb");
    assert_eq!(in_force(&[profile, store], &[]), "env.redb CUBBYHOLE_STORE -");
    let dev = "dev.redb profile --profile";
    assert_eq!(in_force(&[profile, store], &["--profile", "dev"]), dev);
    let named = &["--store", "redb:option.redb"];
    assert_eq!(in_force(&[profile, store], named), "option.redb --store -");
    let named = &["--store-file", "what?.redb"];
    assert_eq!(in_force(&[profile, store], named), "what%3F.redb --store-file -");
    // Empty is as if it were not set.
    let empty = [("CUBBYHOLE_PROFILE", ""), ("CUBBYHOLE_STORE", ""), ("CUBBYHOLE_CONFIG", "")];
    assert_eq!(in_force(&empty, &[]), "dev.redb profile default_profile");
}

#[test]
fn the_commands_work_on_the_store_in_force() {
    let place = Place::new();
    let file = place.configure(FILE);
    let folder = file.parent().unwrap();
    std::fs::create_dir(folder.join("sub")).unwrap();
    place.ok(&["put", "acme", "k", "of dev"]);
    place.ok(&["put", "acme", "k", "of other", "--profile", "other"]);
    // Relative paths begin at the folder of the file.
    assert!(folder.join("dev.redb").exists() && folder.join("sub/other.redb").exists());
    assert_eq!(place.files(), [".config"]);
    assert_eq!(place.ok(&["get", "acme", "k"]), "of dev");
    let by_variable = run(&place, &[("CUBBYHOLE_PROFILE", "other")], &["get", "acme", "k"]);
    assert_eq!(by_variable.stdout, b"of other");
    place.ok(&["put", "acme", "k", "of another", "--store", "redb:another.redb"]);
    let by_store = [("CUBBYHOLE_STORE", "redb:another.redb")];
    assert_eq!(run(&place, &by_store, &["get", "acme", "k"]).stdout, b"of another");
    // And the second store of a command.
    place.ok(&["put", "acme", "only-here", "v"]);
    let copy = ["copy", "acme", "--to", "other", "--json"];
    assert_eq!(place.run(&copy).code, 0, "{:?}", place.run(&copy));
    assert_eq!(place.ok(&["get", "acme", "only-here", "--profile", "other"]), "v");
    let message = place.fails(2, &["copy", "acme", "--to", "othr"]);
    assert!(message.contains("dev, other") && message.contains("redb:othr"), "{message}");
    let message = place.fails(2, &["copy", "acme", "--to", "s3cret@host"]);
    assert!(!message.contains("s3cret"), "{message}");
}

#[test]
fn store_and_profile_together_are_a_mistake() {
    let place = Place::new();
    place.configure(FILE);
    for arguments in [
        &["tenants", "--store", "memory:", "--profile", "dev"][..],
        &["--store", "memory:", "tenants", "--profile", "dev"],
        &["--profile", "dev", "config", "show", "--store", "memory:"],
        &["--store-file", "a.redb", "tenants", "--profile", "dev"],
        &["tenants", "--store-file", "a.redb", "--store", "memory:"],
    ] {
        let message = place.fails(2, arguments);
        assert!(message.contains("--store-file and --profile each name"), "{message}");
    }
}

#[test]
fn profile_option_wins_over_the_environment() {
    let place = Place::new();
    let file = place.configure(FILE);
    let store = [("CUBBYHOLE_STORE", "redb:env.redb")];
    let ran = run(&place, &store, &["put", "acme", "k", "v", "--profile", "dev"]);
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{ran:?}");
    assert!(file.with_file_name("dev.redb").exists());
    assert_eq!(place.files(), [".config"]);
    // Of the two variables the store's wins.
    let both = [store[0], ("CUBBYHOLE_PROFILE", "dev")];
    assert_eq!(run(&place, &both, &["put", "acme", "k", "v"]).code, 0);
    assert_eq!(place.files(), [".config", "env.redb"]);
}

#[test]
fn the_profile_sets_the_time_unless_the_option_does() {
    let place = Place::new();
    place.configure("[profiles.hasty]\nstore = \"redb:h.redb\"\ntimeout = \"1ns\"\n");
    let put = ["put", "acme", "k", "v", "--profile", "hasty"];
    assert_eq!(place.run(&put).code, 4);
    place.ok(&[&put[..], &["--timeout", "1m"]].concat());
    // Of a profile that is not in force nothing holds.
    place.ok(&["put", "acme", "k", "v"]);
    assert_eq!(shown(&place, &[], &["--profile", "hasty"])["timeout"], "1ns");
    let given = shown(&place, &[], &["--profile", "hasty", "--timeout", "90s"]);
    assert_eq!(given["timeout"], "1m 30s");
}

#[test]
fn the_file_is_where_it_was_said_to_be() {
    let place = Place::new();
    place.configure(FILE);
    place.write("a.toml", "[profiles.p]\nstore = \"redb:a.redb\"\n");
    place.write("b.toml", "[profiles.p]\nstore = \"redb:b.redb\"\n");
    let a = [("CUBBYHOLE_CONFIG", "a.toml")];
    let ran = run(&place, &a, &["put", "acme", "k", "v", "--profile", "p"]);
    assert_eq!((ran.code, place.files().contains(&"a.redb".to_owned())), (0, true), "{ran:?}");
    let put = ["--config", "b.toml", "put", "acme", "k", "v", "--profile", "p"];
    let ran = run(&place, &a, &put);
    assert_eq!((ran.code, place.files().contains(&"b.redb".to_owned())), (0, true), "{ran:?}");
    assert_eq!(shown(&place, &a, &[])["file"]["named_by"], "CUBBYHOLE_CONFIG");
    assert_eq!(shown(&place, &a, &["--config", "b.toml"])["file"]["named_by"], "--config");

    for (variables, options, by) in [
        (&[][..], &["--config", "no.toml"][..], "--config"),
        (&[("CUBBYHOLE_CONFIG", "no.toml")], &[], "CUBBYHOLE_CONFIG"),
    ] {
        for command in [&["tenants"][..], &["config", "show"]] {
            let ran = run(&place, variables, &[command, options].concat());
            assert!(ran.code == 2 && ran.stderr.contains("no.toml"), "{ran:?}");
            assert!(ran.stderr.contains(by), "{ran:?}");
        }
    }
    // It is read where something of it is needed, and nowhere else.
    place.ok(&["put", "acme", "k", "v", "--store", "redb:x.redb", "--config", "no.toml"]);
    place.ok(&["completions", "bash", "--config", "no.toml"]);
}

#[test]
fn a_profile_that_is_not_there_is_answered_with_those_that_are() {
    let place = Place::new();
    let message = place.fails(2, &["tenants", "--profile", "prod"]);
    assert!(message.contains("`prod`") && message.contains("config.toml"), "{message}");
    place.configure(FILE);
    let message = place.fails(2, &["tenants", "--profile", "prod"]);
    assert!(message.contains("it has dev, other"), "{message}");
    let ran = run(&place, &[("CUBBYHOLE_PROFILE", "prod")], &["tenants"]);
    assert!(ran.code == 2 && ran.stderr.contains("by CUBBYHOLE_PROFILE"), "{ran:?}");
    let message = place.fails(2, &["tenants", "--profile", "u:s3cret@h"]);
    assert!(!message.contains("s3cret"), "{message}");
}

/// A mistake in the file, what the message must name, and the line that it names.
const MISTAKES: [(&str, &str, u32); 27] = [
    ("default_profile", "not TOML", 1),
    ("[profiles.a]\nstore = s3cret", "not TOML", 2),
    ("[profiles.a]\nstore = \"s3cret", "not TOML", 2),
    ("[profiles.a]\nstore = \"redb:a\"\nstore = \"s3cret\"", "not TOML", 3),
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
    ("[profiles.a]\nstore = \"redb:a\"\ntimeout = \"0s\"", "more than zero", 3),
    ("[profiles.a]\nstore = \"redb:a\"\ntimeout = 30", "quotation marks", 3),
    ("[profiles.a]\nstore = \"redb:a\"\npassword = \"s3cret\"", "`password_env`", 3),
    ("[profiles.a]\nstore = \"redis://h\"\npassword_env = \"s3cret!\"", "name of a variable", 3),
    ("[profiles.a]\nstore = \"redis://h\"\npassword_file = \"\"", "path of a file", 3),
    (
        "[profiles.a]\npassword_env = \"A\"\nstore = \"redis://h\"\npassword_file = \"b\"",
        "both name the password",
        4,
    ),
    (
        "[profiles.a]\nstore = \"redis://:s3cret@h\"\npassword_env = \"A\"",
        "holds a password itself",
        3,
    ),
    ("[profiles.a]\nstore = \"redb:s3cret\"\npassword_env = \"A\"", "of a server", 3),
    ("[profiles.a]\nstore = \"postgres://s3cret\"\npassword_file = \"b\"", "USER@HOST", 3),
];

#[test]
fn a_mistake_in_the_file_is_told_with_its_line_and_without_what_stands_there() {
    let place = Place::new();
    for (text, part, line) in MISTAKES {
        place.configure(text);
        let message = place.fails(2, &["tenants"]);
        let at = format!("config.toml, line {line}: ");
        assert!(message.contains(&at) && message.contains(part), "{text}: {message}");
        assert!(!message.contains("s3cret"), "{message}");
        assert_eq!(place.fails(2, &["config", "show"]), message);
        // What needs no store does not fail over it, nor what names its store otherwise.
        place.ok(&["completions", "bash"]);
        place.ok(&["put", "acme", "k", "v", "--store", "redb:x.redb"]);
    }
    std::fs::write(place.configure(""), [0xff]).unwrap();
    assert!(place.fails(2, &["tenants"]).contains("config.toml"));
}

/// What a server says to what came so far; whether more is to come.
type Answer = fn(&[u8], &mut TcpStream) -> bool;

/// A server of one connection: reads until `answer` has nothing more to say to what came so far,
/// and returns all that came.
fn serve(answer: Answer) -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
        let mut came = Vec::new();
        let mut buffer = [0; 4096];
        while answer(&came, &mut stream) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(read) => came.extend_from_slice(&buffer[..read]),
            }
        }
        came
    });
    (port, server)
}

fn holds(came: &[u8], text: &str) -> bool {
    came.windows(text.len()).any(|part| part == text.as_bytes())
}

/// Takes whatever comes first, which is who the client is.
fn redis(came: &[u8], _: &mut TcpStream) -> bool {
    !holds(came, "AUTH") || !came.ends_with(b"\r\n")
}

/// Asks whoever begins for a password in clear text.
fn postgres(came: &[u8], stream: &mut TcpStream) -> bool {
    let begun = came.len() >= 4;
    if begun && !holds(came, SECRET) {
        stream.write_all(b"R\0\0\0\x08\0\0\0\x03").unwrap();
    }
    !holds(came, SECRET)
}

#[test]
fn the_password_comes_to_the_server_and_into_no_message() {
    let place = Place::new();
    place.write("secret", format!("{SECRET}\n"));
    place.write("windows", format!("{SECRET}\r\n"));
    let (unix, windows, cut) =
        (format!("{SECRET}\n"), format!("{SECRET}\r\n"), format!("{SECRET}\r"));
    let variables = [
        ("SECRET", SECRET),
        ("SECRET_LF", &unix),
        ("SECRET_CRLF", &windows),
        // What a file of variables with Windows line ends leaves behind.
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
            place.write("c.toml", format!("[profiles.p]\nstore = \"{url}\"\n{source}\n"));
            let call =
                ["tenants", "--config", "c.toml", "--profile", "p", "--timeout", "5s", "-vvv"];
            let ran = run(&place, &variables, &call);
            // Where nobody called, the server would wait for ever.
            drop(TcpStream::connect(("127.0.0.1", port)));
            let came = server.join().unwrap();
            // As each protocol writes it: all of it, and without the line end.
            let whole = [format!("${}\r\n{SECRET}\r\n", SECRET.len()), format!("{SECRET}\0")];
            let shown = String::from_utf8_lossy(&came);
            assert!(whole.iter().any(|text| holds(&came, text)), "{url}: {shown}: {ran:?}");
            assert_ne!(ran.code, 0, "{ran:?}");
            assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
            assert!(ran.stderr.contains("read the configuration file"), "{ran:?}");
        }
    }
}

#[test]
fn a_server_that_is_not_there_is_told_of_without_the_password() {
    let place = Place::new();
    for url in ["redis://app@127.0.0.1:1", "postgres://app@127.0.0.1:1/state"] {
        place.configure(&format!("[profiles.p]\nstore = \"{url}\"\npassword_env = \"SECRET\"\n"));
        let ran = run(&place, &[("SECRET", "s3cret")], &["tenants", "--profile", "p"]);
        assert_eq!(ran.code, 5, "{ran:?}");
        assert!(ran.stderr.contains("127.0.0.1:1") && ran.stderr.contains("`p`"), "{ran:?}");
        assert!(!ran.stderr.contains("s3cret"), "{ran:?}");
    }
}

#[test]
fn a_password_that_cannot_be_had_fails_what_needs_it_and_nothing_else() {
    let place = Place::new();
    place.write("empty", "\n");
    place.write("binary", [0xff, 0xfe]);
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
        place.write("c.toml", text);
        let message = place.fails(2, &["tenants", "--config", "c.toml", "--profile", "p"]);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
        place.ok(&["put", "acme", "k", "v", "--config", "c.toml", "--profile", "q"]);
        place.ok(&["completions", "bash", "--config", "c.toml", "--profile", "p"]);
        let set = ["empty", "binary"].iter().any(|file| source.contains(file));
        let shown = shown(&place, &[], &["--config", "c.toml", "--profile", "p"]);
        assert_eq!(shown["store"]["password"]["is_set"], set, "{shown}");
    }
}

#[cfg(unix)]
#[test]
fn config_show_is_one_exact_object_without_secrets() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let nothing = shown(&place, &[], &["--timeout", "5s"]);
    let usual = place.path(".config/cubbyhole/config.toml");
    let expected = json!({
        "file": {"path": usual, "found": false, "named_by": "platform"},
        "store": {
            "url": "redb:cubbyhole.redb", "named_by": "default",
            "profile": null, "profile_named_by": null, "password": null,
        },
        "timeout": "5s", "default_profile": null, "profiles": [], "warnings": [],
    });
    assert_eq!(nothing, expected);

    let file = place.configure(
        "default_profile = \"prod\"\n\
         [profiles.prod]\nstore = \"postgres://app@db/state?schema=x\"\n\
         password_env = \"SECRET\"\ntimeout = \"30s\"\n\
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
        "default_profile": "prod",
        "profiles": [
            {
                "name": "cache", "store": "rediss://app@cache", "timeout": null,
                "password": {"from": "file", "name": password_file, "is_set": false},
            },
            {
                "name": "old", "store": "postgres://app:***@db/state?password=***",
                "timeout": null, "password": null,
            },
            {
                "name": "prod", "store": "postgres://app@db/state?schema=x",
                "timeout": "30s", "password": prod,
            },
        ],
        "warnings": [],
    });
    let secret = [("SECRET", "s3cret")];
    assert_eq!(shown(&place, &secret, &[]), expected);

    // Others may read it now.
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
    let warned = shown(&place, &secret, &[])["warnings"].clone();
    let warning = warned[0].as_str().unwrap();
    assert!(warning.contains("profile old") && warning.contains("chmod 600"), "{warned}");
    let ran = run(&place, &secret, &["config", "show", "--profile", "old"]);
    assert_eq!(ran.stderr, format!("warning: {warning}\n"));
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("store     postgres://app:***@db/state?password=***\n"), "{text}");
    assert!(text.contains("named by  the profile old, by --profile\n"), "{text}");
    assert!(!text.contains("s3cret"), "{text}");

    let store = ["--store", "redis://u:s3cret@h?x=1&token=s3cret"];
    assert_eq!(shown(&place, &[], &store)["store"]["url"], "redis://u:***@h?x=1&token=***");
}
