//! Reference pages made from the code. `cargo xtask tidy` fails when one is stale.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use sublet_core::ErrorCode;

/// Paths and contents of all generated files.
pub fn files() -> Vec<(&'static str, String)> {
    vec![("docs/reference/errors.md", errors_page())]
}

pub fn write_all(root: &Path) -> Result<()> {
    for (path, content) in files() {
        let path = root.join(path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).context("create the folder")?;
        }
        std::fs::write(&path, content).with_context(|| path.display().to_string())?;
        println!("wrote {}", path.display());
    }
    Ok(())
}

fn errors_page() -> String {
    let mut page = String::from(
        "# Errors\n\n\
         Made from the table in `crates/sublet-core/src/error.rs` by `cargo xtask generate`; do not edit.\n\n\
         An error body is `{\"error\":{\"message\",\"type\",\"code\",\"param\",\"request_id\",\"doc_url\",\"alternatives\"}}`.\n\
         `code` is stable; `message` is for people. `sublet explain CODE` prints the advice below.\n\
         A command that ends with an error exits with the status in the last column.\n\n\
         | code | HTTP | type | exit |\n| --- | --- | --- | --- |\n",
    );
    for code in ErrorCode::ALL {
        let _ = writeln!(page, "| [`{code}`](#{code}) | {} | `{}` | {} |", code.status(), code.kind(), code.exit_status());
    }
    for code in ErrorCode::ALL {
        let _ = write!(page, "\n## {code}\n\n{}\n", code.advice());
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_section() {
        let page = errors_page();
        for code in ErrorCode::ALL {
            assert!(page.contains(&format!("\n## {code}\n\n{}\n", code.advice())), "{code}");
        }
    }
}
