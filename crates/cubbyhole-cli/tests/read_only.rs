//! The tool on read-only files. Reading commands work, do not change the file, and can run
//! concurrently. Writing commands report why they fail.
//!
//! A superuser can write every file. Therefore the tool also runs as another user, and on a volume
//! that is mounted read-only. A test is reported as ignored if the system does not allow that.
#![cfg(unix)]
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use cubbyhole::{Backend, ExecutionContext, Namespace, OpenOptions, Store};
use libtest_mimic::{Arguments, Trial};
use support::tool;

const NOBODY: u32 = 65_534;
/// Mounts the folder `$1` read-only over itself, in a private mount namespace.
const MOUNT: &str =
    r#"mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@""#;

fn main() -> ExitCode {
    let trial = |name: &str, test: fn()| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
    };
    let needs = |trial: Trial, reason: Option<String>| {
        let kind = reason.clone().unwrap_or_default();
        trial.with_ignored_flag(reason.is_some()).with_kind(kind)
    };
    let trials = vec![
        trial("reading_commands_do_not_change_the_file", commands_leave_the_file),
        trial("reading_commands_share_the_file", commands_share_the_file),
        trial("store_with_read_only_in_its_url_refuses_writes", named_read_only),
        needs(
            trial("file_without_write_permission_is_readable", without_permission),
            Caller::OtherUser.missing(),
        ),
        needs(
            trial("store_on_a_read_only_volume_is_readable", on_a_volume),
            Caller::OnVolume.missing(),
        ),
        needs(
            trial("read_only_profile_works_on_a_read_only_volume", with_layers_on_a_volume),
            Caller::OnVolume.missing(),
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A folder with two stores of the same entries: one that was closed, and one whose process was
/// killed.
struct Stores {
    folder: tempfile::TempDir,
}

const NAMES: [&str; 2] = ["closed.redb", "crashed.redb"];

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Stores {
    fn new() -> Self {
        let stores = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(stores.path("")).unwrap();
        runtime().block_on(async {
            let ctx = ExecutionContext::new();
            let store = cubbyhole::open(&ctx, &stores.url(NAMES[0])).await.unwrap();
            for (ns, key) in [("acme:agent-7", "name"), ("acme", "counter"), ("globex", "x")] {
                let ns = Namespace::parse(ns).unwrap();
                store.put(&ctx, &ns, key, "1".into()).await.unwrap();
            }
            // A copy of the open file is the file that a killed process leaves.
            std::fs::copy(stores.path(NAMES[0]), stores.path(NAMES[1])).unwrap();
            store.close(&ctx).await.unwrap();
        });
        stores
    }

    /// Returns the path of a store. Other files are in the parent folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("stores").join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("redb:{}", self.path(name).display())
    }

    /// Returns the names, bytes and modification times of all files.
    fn state(&self) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
        let files = std::fs::read_dir(self.path("")).unwrap().map(|file| file.unwrap().path());
        let state = |path: PathBuf| {
            let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
            (path.clone(), std::fs::read(path).unwrap(), modified)
        };
        let mut all: Vec<_> = files.map(state).collect();
        all.sort();
        all
    }
}

/// The user and mount that the tool runs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The user of the tests, with all permissions.
    Same,
    /// A user without write permission for the stores.
    OtherUser,
    /// A mount namespace in which the folder of the stores is read-only.
    OnVolume,
}

impl Caller {
    /// Returns a command that runs `program` as this caller.
    fn command(self, program: &Path, folder: &Path) -> Command {
        match self {
            Self::OnVolume => {
                let mut command = Command::new("unshare");
                command.args(["--map-root-user", "--mount", "sh", "-c", MOUNT, "sh"]);
                command.arg(folder).arg(program);
                command
            }
            Self::OtherUser if is_superuser() => {
                let mut command = Command::new(program);
                command.uid(NOBODY).gid(NOBODY);
                command
            }
            Self::Same | Self::OtherUser => Command::new(program),
        }
    }

    /// Returns the reason why the system does not support this caller.
    fn missing(self) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let output = self.command(Path::new("true"), folder.path()).output();
        let why = match output {
            Ok(output) if output.status.success() => return None,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().replace('\n', ", "),
            Err(error) => error.to_string(),
        };
        Some(format!("the system does not allow it: {why}"))
    }

    /// Runs the tool on a store: a URL, or `profile:NAME`.
    fn run<S: AsRef<OsStr>>(self, stores: &Stores, url: &str, arguments: &[S]) -> Output {
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_cubbyhole"));
        if self == Self::OtherUser {
            // The other user may not be able to read the build folder.
            let copy = stores.folder.path().join("cubbyhole");
            if !copy.exists() {
                std::fs::copy(&program, &copy).unwrap();
            }
            program = copy;
        }
        let mut command = self.command(&program, &stores.path(""));
        match url.strip_prefix("profile:") {
            Some(profile) => command.args(["--profile", profile]),
            None => command.args(["--store", url]),
        };
        command
            .args(arguments)
            .current_dir(stores.folder.path())
            .env_remove("CUBBYHOLE_STORE")
            .env_remove("CUBBYHOLE_PROFILE")
            .env_remove("CUBBYHOLE_CONFIG")
            .env("XDG_CONFIG_HOME", stores.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Runs the tool, which must succeed, and returns its output.
    #[track_caller]
    fn ok(self, stores: &Stores, url: &str, arguments: &[&str]) -> String {
        let output = self.run(stores, url, arguments);
        assert!(output.status.success(), "{self:?} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

fn is_superuser() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

/// Runs every command that only reads.
fn read_everything(caller: Caller, stores: &Stores) {
    for (number, name) in NAMES.iter().enumerate() {
        let url = stores.url(name);
        let ok = |arguments: &[&str]| caller.ok(stores, &url, arguments);
        assert_eq!(ok(&["get", "acme:agent-7", "name"]), "1");
        assert!(ok(&["get", "acme:agent-7", "name", "--entry"]).contains("expires_at  never"));
        assert_eq!(ok(&["list", "acme"]), "counter\n");
        assert_eq!(ok(&["tenants"]), "acme\nglobex\n");
        assert_eq!(ok(&["namespaces", "acme"]), "acme\nacme:agent-7\n");
        assert!(ok(&["usage", "--all", "--json"]).contains(r#""entries":3"#));
        assert_eq!(ok(&["export", "--all"]).lines().count(), 4);
        assert!(ok(&["erase", "acme", "--dry-run", "--json"]).contains(r#""entries":2"#));
        let counted = ok(&["delete", "acme", "--prefix", "c", "--dry-run", "--json"]);
        assert!(counted.contains(r#""entries":1"#), "{counted}");
        // A dry run only reads, also within one store.
        ok(&["copy", "acme:agent-7", "--to", &url, "--as", "acme:agent-8", "--dry-run"]);
        let target = format!("redb:{}/copy-{number}.redb", stores.folder.path().display());
        ok(&["copy", "--all", "--to", &target, "--verify"]);
        // A dry run only reads the target.
        ok(&["copy", "--all", "--to", &url.replace(name, NAMES[1 - number]), "--dry-run"]);
        let doctor = ok(&["doctor"]);
        assert!(doctor.contains("3, none of them expired"), "{doctor}");
        let is_reported = doctor.contains("the file is read-only");
        assert_eq!(is_reported, caller != Caller::Same, "{doctor}");
    }
}

/// Runs every writing command. Each must fail and report why in one line.
fn write_nothing(caller: Caller, stores: &Stores, url: &str, why: &str) {
    let import = stores.folder.path().join("in.jsonl").display().to_string();
    std::fs::write(&import, r#"{"namespace":["acme"],"key":"k","value":1}"#).unwrap();
    set_mode(Path::new(&import), 0o644);
    for arguments in [
        &["put", "acme", "counter", "2"][..],
        &["delete", "acme", "counter"],
        &["take", "acme", "counter"],
        &["touch", "acme", "counter", "--persist"],
        &["erase", "acme", "--yes"],
        &["delete", "acme", "--prefix", "c", "--yes"],
        &["get", "acme", "counter", "--refresh"],
        &["copy", "acme", "--to", url, "--as", "globex-2"],
        &["evict"],
        &["evict", "--every", "1s"],
        &["compact"],
        &["import", &import],
    ] {
        let output = caller.run(stores, url, arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{arguments:?}: {output:?}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
        assert!(stderr.contains(why), "{arguments:?}: {stderr}");
    }
}

fn commands_leave_the_file() {
    let stores = Stores::new();
    let before = stores.state();
    read_everything(Caller::Same, &stores);
    assert!(stores.state() == before, "a reading command changed the file");
}

fn without_permission() {
    let stores = Stores::new();
    set_mode(stores.folder.path(), 0o777);
    NAMES.iter().for_each(|name| set_mode(&stores.path(name), 0o444));
    set_mode(&stores.path(""), 0o555);
    let before = stores.state();
    let caller = Caller::OtherUser;
    read_everything(caller, &stores);
    let why = "for writing: this user may not write it; make it writable, or open it read-only";
    write_nothing(caller, &stores, &stores.url(NAMES[0]), why);
    assert!(stores.state() == before, "the file was changed");

    set_mode(&stores.path(NAMES[0]), 0);
    for arguments in [&["list", "acme"][..], &["put", "acme", "a", "1"]] {
        let output = caller.run(&stores, &stores.url(NAMES[0]), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(6), "{output:?}");
        assert!(stderr.contains("this user may not read it"), "{stderr}");
    }
    set_mode(&stores.path(""), 0o755);
}

fn on_a_volume() {
    let stores = Stores::new();
    let before = stores.state();
    read_everything(Caller::OnVolume, &stores);
    let why = "for writing: its file system is mounted read-only";
    write_nothing(Caller::OnVolume, &stores, &stores.url(NAMES[0]), why);
    assert!(stores.state() == before, "the file was changed");
}

fn named_read_only() {
    let stores = Stores::new();
    let before = stores.state();
    let url = format!("{}?read_only=true", stores.url(NAMES[1]));
    assert_eq!(Caller::Same.ok(&stores, &url, &["list", "acme"]), "counter\n");
    write_nothing(Caller::Same, &stores, &url, "is open read-only; open it for writing");
    assert!(Caller::Same.ok(&stores, &url, &["doctor"]).contains("configured"));
    // The check comes before counting and before asking for `--yes`.
    let erase = Caller::Same.run(&stores, &url, &["erase", "acme"]);
    assert_eq!(erase.status.code(), Some(6), "{erase:?}");
    let missing = format!("{}?read_only=true", stores.url("missing.redb"));
    let output = Caller::Same.run(&stores, &missing, &["put", "acme", "a", "1"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(stores.state() == before, "the file was changed");
}

/// Runs the tool while this process has the file open.
fn commands_share_the_file() {
    let stores = Stores::new();
    let url = stores.url(NAMES[1]);
    let open = |read_only| -> Arc<dyn Backend> {
        let options = OpenOptions::new().with_read_only(read_only);
        runtime().block_on(options.open(&ExecutionContext::new(), &url)).unwrap()
    };
    let call = |arguments: &[&str]| {
        let output = tool(&[&["--store", &url], arguments].concat()).unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let reader = open(true);
    assert_eq!(call(&["list", "acme"]).0, Some(0));
    let (code, stderr) = call(&["put", "acme", "a", "1"]);
    assert_eq!(code, Some(5), "{stderr}");
    assert!(stderr.contains("open in another process"), "{stderr}");
    drop(reader);
    let writer = open(false);
    for arguments in [&["list", "acme"][..], &["put", "acme", "a", "1"]] {
        let (code, stderr) = call(arguments);
        assert_eq!(code, Some(5), "{stderr}");
        assert!(stderr.contains("open in another process"), "{stderr}");
    }
    drop(writer);
    assert_eq!(call(&["put", "acme", "a", "1"]).0, Some(0));
}

/// A read-only profile whose keys are on the volume too.
fn with_layers_on_a_volume() {
    let stores = Stores::new();
    let keys = stores.path("keys");
    let made = tool(&["key", "generate", &keys.display().to_string()]).unwrap();
    assert!(made.status.success(), "{made:?}");
    let folder = stores.folder.path().join("cubbyhole");
    std::fs::create_dir(&folder).unwrap();
    let config = format!(
        "[profiles.p]\nstore = \"{}\"\n[profiles.p.layers]\nread_only = true\ncache = true\nretry = true\n\
         encryption = {{ key_file = \"{}\", plaintext = \"accept\" }}\n",
        stores.url(NAMES[0]),
        keys.display()
    );
    std::fs::write(folder.join("config.toml"), config).unwrap();
    let ok = |arguments: &[&str]| Caller::OnVolume.ok(&stores, "profile:p", arguments);
    assert_eq!(ok(&["get", "acme:agent-7", "name"]), "1");
    assert_eq!(ok(&["tenants"]), "acme\nglobex\n");
    for arguments in [&["put", "acme", "k", "v"][..], &["reencrypt", "--all"]] {
        let output = Caller::OnVolume.run(&stores, "profile:p", arguments);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.code() == Some(6) && message.contains("layer `read_only`"),
            "{output:?}"
        );
    }
}
