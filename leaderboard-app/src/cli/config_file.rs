//! The TOML file of `--config`: its values become the defaults of the options, so that flags and
//! environment win over it and everything is checked in one way.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;
use clap::{Arg, Command};
use toml::{Table, Value};

/// Which file the arguments or the environment name, if any. Whatever else may be wrong with the
/// arguments is not this function's business.
pub(super) fn path_in(command: &Command, args: &[OsString]) -> Option<PathBuf> {
    let matches = command.clone().ignore_errors(true).try_get_matches_from(args).ok()?;
    let innermost = matches.subcommand().map_or(&matches, |(_, matches)| matches);
    innermost.try_get_one::<PathBuf>("config").ok().flatten().cloned()
}

/// The same command with the file's values as defaults.
///
/// # Errors
/// If the file cannot be read, is not TOML, or has a key that no option has.
pub(super) fn with_defaults_of(mut command: Command, path: &Path) -> Result<Command, clap::Error> {
    let fail = |command: &mut Command, kind, what: &dyn std::fmt::Display| {
        command.error(kind, format!("the configuration file {}: {what}", path.display()))
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => return Err(fail(&mut command, ErrorKind::Io, &error)),
    };
    let table: Table = match text.parse() {
        Ok(table) => table,
        Err(error) => return Err(fail(&mut command, ErrorKind::ValueValidation, &error)),
    };
    let mut unknown = None;
    for (key, value) in &table {
        match value {
            Value::Table(options) if command.find_subcommand(key).is_some() => {
                command = command.mut_subcommand(key, |subcommand| {
                    options.iter().fold(subcommand, |subcommand, (option, value)| {
                        with_default(subcommand, option, value, |key| unknown = Some(key))
                    })
                });
            }
            value => command = with_default(command, key, value, |key| unknown = Some(key)),
        }
    }
    match unknown {
        None => Ok(command),
        Some(key) => {
            let what = format!("`{key}` is no option, or not of a type that it takes; see --help");
            Err(fail(&mut command, ErrorKind::UnknownArgument, &what))
        }
    }
}

/// Sets the default of the option that `--key` names. If there is none, or none with such a value,
/// reports the key.
fn with_default(
    command: Command,
    key: &str,
    value: &Value,
    report: impl FnOnce(String),
) -> Command {
    let flag = key.replace('_', "-");
    let option =
        command.get_arguments().find(|arg| arg.get_long() == Some(&flag) && flag != "config");
    let (Some(id), Some(texts)) = (option.map(|arg| arg.get_id().clone()), texts(value)) else {
        report(key.to_owned());
        return command;
    };
    command.mut_arg(id, |arg: Arg| arg.required(false).default_values(texts))
}

/// A value as it would be typed: scalars as themselves, arrays as several, tables as `key=value`.
fn texts(value: &Value) -> Option<Vec<String>> {
    let scalar = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Integer(number) => Some(number.to_string()),
        Value::Boolean(flag) => Some(flag.to_string()),
        Value::Float(_) | Value::Datetime(_) | Value::Array(_) | Value::Table(_) => None,
    };
    match value {
        Value::Array(values) => values.iter().map(scalar).collect(),
        Value::Table(pairs) => {
            pairs.iter().map(|(key, value)| Some(format!("{key}={}", scalar(value)?))).collect()
        }
        value => Some(vec![scalar(value)?]),
    }
}
