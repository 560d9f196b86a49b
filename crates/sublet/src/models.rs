//! The models of a data directory: the shipped one, and what was imported.

use std::borrow::Cow;
use std::path::Path;

use sublet_core::{Error, ErrorCode, Result};
use sublet_engine::{EmbeddedFiles, Engine, ModelSource};

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

/// Checks that a name can be a directory's and a model's.
pub fn checked_name(name: &str) -> Result<&str> {
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
