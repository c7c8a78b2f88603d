//! Service files (`pg_service.conf`), which have a section for each named connection.

use std::fs;
use std::path::{Path, PathBuf};

use cubbyhole_core::{Error, Result};

use super::environment::Environment;
use super::keywords::Keyword;
use super::parameters::{Origin, Parameters};

/// The user's file, in the home folder.
const USER_FILE: &str = ".pg_service.conf";
/// The system's file, in a system folder.
const SYSTEM_FILE: &str = "pg_service.conf";

/// Adds the parameters of the service that the URL or the environment names.
pub(crate) fn complete(parameters: &mut Parameters, environment: &Environment) -> Result<()> {
    let service = match parameters.text("service")? {
        Some((service, _)) => service.to_owned(),
        None if parameters.contains("service") => return Ok(()),
        None => match environment.variable("PGSERVICE")? {
            Some(service) => service,
            None => return Ok(()),
        },
    };
    let named = match parameters.text("servicefile")? {
        Some((file, _)) => Some(PathBuf::from(file)),
        None => environment.variable("PGSERVICEFILE")?.map(PathBuf::from),
    };
    let mut files = Vec::new();
    if let Some(file) = named {
        if !file.exists() {
            let file = file.display();
            return Err(Error::invalid_argument(format!("the service file {file} does not exist")));
        }
        files.push(file);
    } else if let Some(home) = &environment.home {
        files.push(home.join(USER_FILE));
    }
    match environment.variable("PGSYSCONFDIR")? {
        Some(folder) => files.push(Path::new(&folder).join(SYSTEM_FILE)),
        None => {
            files.extend(environment.service_folders.iter().map(|folder| folder.join(SYSTEM_FILE)));
        }
    }
    files.retain(|file| file.exists());
    for file in &files {
        let text = fs::read_to_string(file).map_err(|error| {
            Error::invalid_argument(format!("cannot read the service file {}", file.display()))
                .with_source(error)
        })?;
        if apply_section(&text, &service, file, parameters)? {
            return Ok(());
        }
    }
    let advice = match &files[..] {
        [] => "there is no service file; create ~/.pg_service.conf or name one with PGSERVICEFILE"
            .to_owned(),
        files => {
            let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
            format!("add a section [{service}] to {}", files.join(" or "))
        }
    };
    Err(Error::invalid_argument(format!("no service `{service}` is defined: {advice}")))
}

/// Adds the parameters of the service's section that are not set yet. Returns whether the file has
/// the section.
fn apply_section(
    text: &str,
    service: &str,
    file: &Path,
    parameters: &mut Parameters,
) -> Result<bool> {
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(header) = line.strip_prefix('[') {
            if found {
                break;
            }
            found = header.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
            continue;
        }
        if !found {
            continue;
        }
        let invalid = |reason: String| {
            let line = format!("line {} of the service file {}", index + 1, file.display());
            Error::invalid_argument(format!("{line}: {reason}"))
        };
        if line.starts_with("ldap") {
            return Err(invalid("LDAP lookup of services is not supported".to_owned()));
        }
        let (name, value) = line
            .split_once('=')
            .ok_or_else(|| invalid("it has no `=`: write `host=db.internal`".to_owned()))?;
        if name == "service" || name == "servicefile" {
            return Err(invalid(format!("a service cannot name another service (`{name}`)")));
        }
        let keyword = Keyword::find(name)
            .ok_or_else(|| invalid("its name is not one of libpq's parameters".to_owned()))?;
        if !parameters.contains(keyword.name) {
            let origin = Origin::Service { name: service.to_owned(), file: file.to_owned() };
            parameters.set(keyword.name, value.as_bytes().to_vec(), origin)?;
        }
    }
    Ok(found)
}
