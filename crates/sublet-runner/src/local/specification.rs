//! Checks an attempt's specification before anything is made for it, and turns it into what the job sees.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::quantity::Bytes;
use sublet_core::runner::AttemptSpec;

use super::inventory::Device;

const ARGUMENTS_MAX: usize = 1_024;
const VARIABLES_MAX: usize = 1_024;
/// The kernel gives a program two megabytes for both together.
const COMMAND_AND_ENVIRONMENT_BYTES_MAX: usize = 1024 * 1024;
const FILES_MAX: usize = 1_024;
const FILES_BYTES_MAX: usize = 64 * 1024 * 1024;
const PATH_BYTES_MAX: usize = 1_024;
const PATH_DEPTH_MAX: usize = 32;
/// Below these a sandbox cannot even start a shell.
const MEMORY_BYTES_MIN: i64 = 8 * 1024 * 1024;
const DISK_BYTES_MIN: i64 = 1024 * 1024;
const OPEN_FILES_MIN: u32 = 16;

const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

fn refuse(param: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidRequest, message).param(param)
}

/// Refuses what could not be run as written.
pub fn check(spec: &AttemptSpec) -> Result<()> {
    check_command(&spec.command)?;
    check_environment(spec)?;
    check_files(&spec.files)?;
    check_limits(spec)
}

fn check_command(command: &[String]) -> Result<()> {
    if command.first().is_none_or(String::is_empty) {
        return Err(refuse("command", "the command is empty").alternative("give a program and its arguments"));
    }
    if command.len() > ARGUMENTS_MAX {
        return Err(refuse("command", format!("the command has more than {ARGUMENTS_MAX} arguments")));
    }
    if command.iter().any(|argument| argument.contains('\0')) {
        return Err(refuse("command", "an argument holds a zero byte"));
    }
    Ok(())
}

fn check_environment(spec: &AttemptSpec) -> Result<()> {
    if spec.environment.len() > VARIABLES_MAX {
        return Err(refuse("environment", format!("there are more than {VARIABLES_MAX} environment variables")));
    }
    let wrong = spec.environment.iter().find(|(name, value)| name.is_empty() || name.contains(['=', '\0']) || value.contains('\0'));
    if let Some((name, _)) = wrong {
        let shown: String = name.chars().take(80).collect();
        return Err(refuse("environment", format!("'{shown}' is not an environment variable that can be set")));
    }
    let variables = spec.environment.iter().map(|(name, value)| name.len() + value.len() + 2);
    let bytes: usize = spec.command.iter().map(|argument| argument.len() + 1).chain(variables).sum();
    if bytes > COMMAND_AND_ENVIRONMENT_BYTES_MAX {
        let message = format!("command and environment together exceed {COMMAND_AND_ENVIRONMENT_BYTES_MAX} bytes");
        return Err(refuse("environment", message).alternative("put large values into files"));
    }
    Ok(())
}

fn check_files(files: &BTreeMap<String, Vec<u8>>) -> Result<()> {
    if files.len() > FILES_MAX {
        return Err(refuse("files", format!("there are more than {FILES_MAX} files")));
    }
    let bytes: usize = files.values().map(Vec::len).sum();
    if bytes > FILES_BYTES_MAX {
        return Err(refuse("files", format!("the files together exceed {FILES_BYTES_MAX} bytes")));
    }
    for path in files.keys() {
        let parts = Path::new(path).components();
        let plain = parts.clone().all(|part| matches!(part, Component::Normal(_)));
        let depth = parts.count();
        if !plain
            || depth == 0
            || depth > PATH_DEPTH_MAX
            || path.len() > PATH_BYTES_MAX
            || path.contains('\0')
            || path.ends_with('/')
        {
            let shown: String = path.chars().take(80).collect();
            let error = refuse("files", format!("'{shown}' is not a path inside the work directory"));
            return Err(error.alternative("use a relative path without '..'"));
        }
    }
    Ok(())
}

fn check_limits(spec: &AttemptSpec) -> Result<()> {
    let limits = &spec.limits;
    if limits.memory < Bytes::new(MEMORY_BYTES_MIN) {
        return Err(refuse("limits.memory", format!("the memory limit is below {MEMORY_BYTES_MIN} bytes")));
    }
    if limits.disk < Bytes::new(DISK_BYTES_MIN) {
        return Err(refuse("limits.disk", format!("the disk limit is below {DISK_BYTES_MIN} bytes")));
    }
    if limits.log < Bytes::ZERO {
        return Err(refuse("limits.log", "the log limit is negative"));
    }
    if limits.processes == 0 || limits.cpu_millis == 0 || limits.open_files < OPEN_FILES_MIN {
        let message = format!("a job needs at least one process, some processor time and {OPEN_FILES_MIN} open files");
        return Err(refuse("limits", message));
    }
    Ok(())
}

/// The whole environment of the job. What the customer set wins over the defaults, not over what Sublet says.
pub fn environment(spec: &AttemptSpec, devices: &[Device]) -> BTreeMap<String, String> {
    let mut all = BTreeMap::from([("PATH".to_owned(), SEARCH_PATH.to_owned()), ("HOME".to_owned(), "/work".to_owned())]);
    all.extend(spec.environment.clone());
    let cuda: Vec<&str> = devices.iter().filter_map(|device| device.cuda_name.as_deref()).collect();
    all.extend([
        ("SUBLET_JOB".to_owned(), spec.job.to_string()),
        ("SUBLET_ATTEMPT".to_owned(), spec.attempt.to_string()),
        ("SUBLET_DEVICES".to_owned(), spec.device_names.join(",")),
        ("SUBLET_NOTICE_FILE".to_owned(), "/run/sublet/notice.json".to_owned()),
        ("SUBLET_CHECKPOINT_DIR".to_owned(), "/work".to_owned()),
        ("CUDA_VISIBLE_DEVICES".to_owned(), cuda.join(",")),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use sublet_core::error::ErrorCode;

    use super::*;

    #[test]
    fn a_file_can_only_be_placed_inside_the_work_directory() {
        for (path, good) in [
            ("train.py", true),
            ("data/part-1.bin", true),
            (".hidden", true),
            ("a..b", true),
            ("", false),
            ("/etc/passwd", false),
            ("..", false),
            ("../other", false),
            ("a/../../b", false),
            ("./a", false),
            ("a/", false),
            ("a\0b", false),
        ] {
            let outcome = check_files(&BTreeMap::from([(path.to_owned(), Vec::new())]));
            assert_eq!(outcome.is_ok(), good, "{path:?}");
        }
    }

    #[test]
    fn a_command_must_name_a_program() {
        for (command, good) in
            [(vec!["sh"], true), (vec!["sh", ""], true), (vec![], false), (vec![""], false), (vec!["a\0"], false)]
        {
            let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
            let outcome = check_command(&command).map_err(|error| error.code());
            assert_eq!(outcome, if good { Ok(()) } else { Err(ErrorCode::InvalidRequest) }, "{command:?}");
        }
    }
}
