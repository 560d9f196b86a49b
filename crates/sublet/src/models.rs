//! The models of a data directory: the shipped one, and what was imported.

use std::borrow::Cow;
use std::path::Path;

use sublet_core::engine::{ModelEngine, ModelInfo};
use sublet_core::{Error, ErrorCode, Result};
use sublet_engine::{EmbeddedFiles, Engine, ModelSource};

use crate::data_directory;

/// The name of the model that ships inside the binary.
pub const SHIPPED_MODEL: &str = "sublet-mini";

const fn file(bytes: &'static [u8]) -> Cow<'static, [u8]> {
    Cow::Borrowed(bytes)
}

fn shipped() -> EmbeddedFiles {
    EmbeddedFiles {
        config: file(include_bytes!("../../../models/sublet-mini/config.json")),
        weights: file(include_bytes!("../../../models/sublet-mini/model.safetensors")),
        tokenizer: file(include_bytes!("../../../models/sublet-mini/tokenizer.json")),
        tokenizer_config: Some(file(include_bytes!("../../../models/sublet-mini/tokenizer_config.json"))),
        generation_config: Some(file(include_bytes!("../../../models/sublet-mini/generation_config.json"))),
    }
}

/// Loads the shipped model and everything under `models`. A damaged import is reported and left out,
/// so that it cannot keep the cloud from starting.
pub fn load_all(engine: &Engine, models: &Path) -> Result<Vec<String>> {
    engine.add_model(SHIPPED_MODEL, ModelSource::Embedded(shipped()))?;
    let mut names = vec![SHIPPED_MODEL.to_owned()];
    let entries = std::fs::read_dir(models).map_err(|error| Error::internal(format!("{}: {error}", models.display())))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let Some(name) = path.file_name().and_then(|name| name.to_str()).map(str::to_owned) else { continue };
        if name.starts_with('.') {
            continue;
        }
        match ModelSource::from_path(&path).and_then(|source| engine.add_model(&name, source)) {
            Ok(_) => names.push(name),
            Err(error) => tracing::error!(model = name, ?error, "an imported model cannot be served"),
        }
    }
    Ok(names)
}

/// Most bytes of one imported model.
const MODEL_BYTES_MAX: u64 = 1 << 40;
/// Most files of one imported model.
const MODEL_FILES_MAX: usize = 1_000;

/// Copies a model into the data directory and serves it. Nothing is left behind if it cannot be served.
pub fn import(engine: &Engine, models: &Path, source: &Path, name: Option<&str>) -> Result<ModelInfo> {
    let own_name = source.file_stem().and_then(|stem| stem.to_str()).unwrap_or("");
    let name = checked_name(name.unwrap_or(own_name))?;
    let target = models.join(name);
    if target.exists() || engine.models().iter().any(|model| model.name == name) {
        return Err(Error::new(ErrorCode::Conflict, format!("a model called '{name}' is served already"))
            .param("name")
            .alternative("import it under another name"));
    }
    ModelSource::from_path(source)?;
    let staging = models.join(format!(".{name}.new"));
    let imported =
        copy(source, &staging).and_then(|()| engine.add_model(name, ModelSource::from_path(&staging)?)).and_then(|info| {
            std::fs::rename(&staging, &target).map(|()| info).map_err(|error| data_directory::failure(&target, &error))
        });
    if imported.is_err() {
        // What could not be served is not kept; a name that was never added is not there to be removed.
        let _ = engine.remove_model(name);
        let _ = std::fs::remove_dir_all(&staging);
    }
    imported
}

/// Copies a file or a flat directory of files.
fn copy(source: &Path, target: &Path) -> Result<()> {
    let failed = |error: std::io::Error| data_directory::failure(target, &error);
    if target.exists() {
        std::fs::remove_dir_all(target).map_err(failed)?;
    }
    std::fs::create_dir(target).map_err(failed)?;
    let files = if source.is_dir() {
        let entries = std::fs::read_dir(source).map_err(|error| data_directory::failure(source, &error))?;
        entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).take(MODEL_FILES_MAX).collect()
    } else {
        vec![source.to_owned()]
    };
    let mut total = 0_u64;
    for file in files {
        let Some(name) = file.file_name() else { continue };
        total = total.saturating_add(std::fs::metadata(&file).map_err(failed)?.len());
        if total > MODEL_BYTES_MAX {
            return Err(Error::new(ErrorCode::ModelFileInvalid, format!("a model has at most {MODEL_BYTES_MAX} bytes")));
        }
        std::fs::copy(&file, target.join(name)).map_err(failed)?;
    }
    Ok(())
}

/// Checks that a name can be a directory's and a model's.
fn checked_name(name: &str) -> Result<&str> {
    let good = !name.is_empty()
        && name.len() <= 100
        && !name.starts_with('.')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
    if good {
        return Ok(name);
    }
    Err(Error::new(
        ErrorCode::InvalidRequest,
        "a model's name has 1 to 100 letters, digits, '-', '_' and '.', and does not start with '.'",
    )
    .param("name"))
}
