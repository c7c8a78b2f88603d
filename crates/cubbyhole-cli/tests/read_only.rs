//! A store that may only be read: commands that only read do, leave the file as it is, and several
//! may at a time. Others say why not.
//!
//! A superuser may write every file. So the tool runs as another user where these tests do not, and on
//! a volume that is mounted read-only. Where the system allows neither, the test reports itself
//! ignored.
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
/// Mounts the folder `$1` over itself, read-only, where no other process sees it.
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
        trial("commands_that_read_leave_the_file_as_it_is", commands_leave_the_file),
        trial("commands_that_read_share_the_file", commands_share_the_file),
        trial("a_store_named_read_only_takes_no_write", named_read_only),
        needs(
            trial("a_file_without_write_permission_is_read", without_permission),
            Caller::OtherUser.missing(),
        ),
        needs(trial("a_read_only_volume_is_read", on_a_volume), Caller::OnVolume.missing()),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A folder with two stores of the same entries: one was closed, and one whose process was killed.
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
            // A killed process leaves the file as other processes see it.
            std::fs::copy(stores.path(NAMES[0]), stores.path(NAMES[1])).unwrap();
            store.close(&ctx).await.unwrap();
        });
        stores
    }

    /// The path of a store. Other files are in the folder above.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("stores").join(name)
    }

    fn url(&self, name: &str) -> String {
        format!("redb:{}", self.path(name).display())
    }

    /// Bytes and times of all, and their names.
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

/// Who calls the tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// As these tests are, who may do everything.
    Same,
    /// As a user who has no right to write the stores.
    OtherUser,
    /// Where the stores' folder is mounted read-only.
    OnVolume,
}

impl Caller {
    /// `program` with these arguments, where it can reach the folder.
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

    /// Why the system does not let it be called so, if it does not.
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

    /// Runs the tool on a store.
    fn run<S: AsRef<OsStr>>(self, stores: &Stores, url: &str, arguments: &[S]) -> Output {
        let mut program = PathBuf::from(env!("CARGO_BIN_EXE_cubbyhole"));
        if self == Self::OtherUser {
            // The folders above it may be closed to others.
            let copy = stores.folder.path().join("cubbyhole");
            if !copy.exists() {
                std::fs::copy(&program, &copy).unwrap();
            }
            program = copy;
        }
        let mut command = self.command(&program, &stores.path(""));
        command
            .args(["--store", url])
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

    /// Runs what must succeed; its output.
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
        let target = format!("redb:{}/copy-{number}.redb", stores.folder.path().display());
        ok(&["copy", "--all", "--to", &target, "--verify"]);
        // A dry run only reads the target.
        ok(&["copy", "--all", "--to", &url.replace(name, NAMES[1 - number]), "--dry-run"]);
        let doctor = ok(&["doctor"]);
        assert!(doctor.contains("3, none of them expired"), "{doctor}");
        let is_told = doctor.contains("the file is read-only");
        assert_eq!(is_told, caller != Caller::Same, "{doctor}");
    }
}

/// Runs every command that writes; each says in one line why it does not.
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
    assert!(stores.state() == before, "a command that reads changed the file");
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
    assert!(Caller::Same.ok(&stores, &url, &["doctor"]).contains("as configured"));
    // Before it counts, and asks for `--yes`.
    let erase = Caller::Same.run(&stores, &url, &["erase", "acme"]);
    assert_eq!(erase.status.code(), Some(6), "{erase:?}");
    let missing = format!("{}?read_only=true", stores.url("missing.redb"));
    let output = Caller::Same.run(&stores, &missing, &["put", "acme", "a", "1"]);
    assert_eq!(output.status.code(), Some(5), "{output:?}");
    assert!(stores.state() == before, "the file was changed");
}

/// One process has the file open, and another runs the tool.
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
