//! The temporary folder of a server, and the user that owns it.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Command};

use crate::process::table::output;

/// Servers refuse to run as root. If the tests run as root, servers run as the first of these users.
const USERS: [&str; 2] = ["postgres", "nobody"];

/// A folder that only its owner may enter. Dropping it removes the folder.
pub(crate) struct Folder {
    path: PathBuf,
    /// `None` if the tests themselves run unprivileged.
    owner: Option<Owner>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Owner {
    uid: u32,
    gid: u32,
}

impl Folder {
    pub(crate) fn create() -> Result<Self, String> {
        let owner = if is_root()? { Some(unprivileged_user()?) } else { None };
        // Short, because the path of a socket in it is limited to about a hundred bytes.
        let name = format!("cubbyhole-{}-{}", process::id(), &random_word()?[..12]);
        let path = env::temp_dir().join(name);
        let explain = |error| format!("{}: {error}", path.display());
        DirBuilder::new().mode(0o700).create(&path).map_err(explain)?;
        let folder = Self { path: path.clone(), owner };
        folder.give(&path).map_err(explain)?;
        Ok(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file that only the owner may read.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let written = options.open(&path).and_then(|mut file| file.write_all(content.as_ref()));
        written
            .and_then(|()| self.give(&path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Creates a folder in this one, with the same owner.
    pub(crate) fn create_folder(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.path.join(name);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .and_then(|()| self.give(&path))
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    fn give(&self, path: &Path) -> std::io::Result<()> {
        self.owner.map_or(Ok(()), |owner| chown(path, Some(owner.uid), Some(owner.gid)))
    }

    /// Makes `command` run as the owner.
    pub(crate) fn run_as_owner(&self, command: &mut Command) {
        if let Some(owner) = self.owner {
            command.uid(owner.uid).gid(owner.gid);
        }
        // That user may not have access to the working directory of the tests.
        command.current_dir("/");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Usually the watcher of the server has removed it.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Returns 32 random hexadecimal digits, usable as a password.
pub(crate) fn random_word() -> Result<String, String> {
    const SOURCE: &str = "/dev/urandom";
    let mut bytes = [0; 16];
    File::open(SOURCE)
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| format!("{SOURCE}: {error}"))?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

/// Returns whether this program runs as root. The standard library has no function for it.
pub(crate) fn is_root() -> Result<bool, String> {
    Ok(output(Command::new("id").arg("-u"))?.trim() == "0")
}

fn unprivileged_user() -> Result<Owner, String> {
    const USERS_FILE: &str = "/etc/passwd";
    let text = fs::read_to_string(USERS_FILE).map_err(|error| format!("{USERS_FILE}: {error}"))?;
    USERS.iter().find_map(|name| find_user(&text, name)).ok_or_else(|| {
        format!("servers do not run as root, and none of the users {USERS:?} is in {USERS_FILE}")
    })
}

fn find_user(text: &str, name: &str) -> Option<Owner> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let uid = (fields.next()? == name).then(|| fields.nth(1))??.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Owner { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    #[test]
    fn user_is_found_by_the_whole_name() {
        let text = "root:x:0:0:root:/root:/bin/sh\n\
                    postgres2:x:1:2::/:/bin/sh\n\
                    postgres:x:101:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(find_user(text, "postgres"), Some(Owner { uid: 101, gid: 104 }));
        assert_eq!(find_user(text, "nobody"), None);
    }

    #[test]
    fn folder_is_private_and_removed_with_its_guard() {
        let (folder, other) = (Folder::create().unwrap(), Folder::create().unwrap());
        assert_ne!(folder.path(), other.path());
        let file = folder.write("word", "secret").unwrap();
        for (path, mode) in [(folder.path(), 0o700), (&file, 0o600)] {
            let metadata = fs::metadata(path).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
            assert_eq!(metadata.uid() == 0, is_root().unwrap() && folder.owner.is_none());
        }
        let mut command = Command::new("cat");
        folder.run_as_owner(command.arg(&file));
        assert_eq!(output(&mut command).unwrap(), "secret");

        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
    }
}
