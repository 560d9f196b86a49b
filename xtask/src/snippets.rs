//! Runs what the documents tell a reader to type.
//!
//! Fenced blocks named `sh`, `python` and `js` are run, in order, one shell per document, in an
//! empty directory. A second word changes that: `sh serve` is one command that keeps running
//! until the document ends or the next one is served (it must become ready, and end with status 0
//! when told to stop); `sh stopped` first stops what is served; `python older` runs where the libraries
//! are that want an older openai package; `sh no-run` is not run and counts in the ratchet. Every other
//! block is an illustration.
//!
//! What is served listens on a free port; examples find it in `credentials.json`.
//! `cargo run --release -- …` starts the binary that was built already, so that a document is
//! tested in seconds; the release build itself is tested by `cargo xtask full`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::environment;
use crate::steps;

/// How a snippet is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shell,
    Serve,
    Stopped,
    Python,
    OlderPython,
    JavaScript,
    NoRun,
}

/// One fenced block that a reader is meant to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snippet {
    /// The line of the opening fence.
    pub line: usize,
    pub mode: Mode,
    pub text: String,
}

pub fn parse(markdown: &str) -> Vec<Snippet> {
    let mut snippets = Vec::new();
    let mut open: Option<(usize, Option<Mode>, String)> = None;
    for (index, line) in markdown.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => open = Some((index + 1, mode(info), String::new())),
            (Some(_), Some(_)) => {
                if let Some((line, Some(mode), text)) = open.take() {
                    snippets.push(Snippet { line, mode, text });
                }
            }
            (Some((_, _, text)), None) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, None) => {}
        }
    }
    snippets
}

fn mode(info: &str) -> Option<Mode> {
    match info.trim() {
        "sh" => Some(Mode::Shell),
        "sh serve" => Some(Mode::Serve),
        "sh stopped" => Some(Mode::Stopped),
        "python" => Some(Mode::Python),
        "python older" => Some(Mode::OlderPython),
        "js" => Some(Mode::JavaScript),
        other if other.split(' ').nth(1) == Some("no-run") => Some(Mode::NoRun),
        _ => None,
    }
}

/// Runs the snippets of all documents; `binary` is the built `sublet`.
pub fn run_all(root: &Path, binary: &Path) -> Result<String> {
    let (mut documents, mut snippets) = (0, 0);
    let mut failures = Vec::new();
    for document in documents_of(root)? {
        let parsed = parse(&std::fs::read_to_string(root.join(&document))?);
        let runnable: Vec<Snippet> = parsed.into_iter().filter(|snippet| snippet.mode != Mode::NoRun).collect();
        if runnable.is_empty() {
            continue;
        }
        documents += 1;
        snippets += runnable.len();
        match run_document(&Stage::prepare(root, binary, &document)?, &document, &runnable) {
            Ok(()) => println!("      {document}: {} snippets", runnable.len()),
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    if !failures.is_empty() {
        bail!("{}", failures.join("\n\n"));
    }
    if snippets == 0 {
        bail!("no document has a snippet to run: the convention or the documents are broken");
    }
    Ok(format!("{snippets} snippets in {documents} documents"))
}

fn documents_of(root: &Path) -> Result<Vec<String>> {
    let listing = crate::tree::output(root, "git", &["ls-files", "--cached", "--others", "--exclude-standard", "*.md"])?;
    Ok(listing.lines().filter(|path| path.starts_with("docs/") || !path.contains('/')).map(str::to_owned).collect())
}

/// The empty directory a document runs in.
struct Stage {
    directory: PathBuf,
    path: String,
}

impl Stage {
    fn prepare(root: &Path, binary: &Path, document: &str) -> Result<Self> {
        let directory = root.join("target/docs-test").join(document.replace('/', "-"));
        if directory.exists() {
            std::fs::remove_dir_all(&directory).context("empty the stage")?;
        }
        let bin = directory.join("bin");
        let work = directory.join("work");
        std::fs::create_dir_all(&bin)?;
        std::fs::create_dir_all(&work)?;
        let shim =
            format!("#!/bin/sh\n[ \"$1 $2 $3\" = 'run --release --' ] || exit 97\nshift 3\nexec '{}' \"$@\"\n", binary.display());
        write_program(&bin.join("cargo"), &shim)?;
        let older = environment::OLDER_PYTHON.bin(root).join("python");
        for (name, program) in [("sublet", binary), ("python-older", &older)] {
            write_program(&bin.join(name), &format!("#!/bin/sh\nexec '{}' \"$@\"\n", program.display()))?;
        }
        let modules = environment::node_modules(root);
        std::os::unix::fs::symlink(modules, work.join("node_modules")).context("link node_modules")?;
        let (python, node) = (environment::PYTHON.bin(root), environment::node_bin(root));
        let inherited = std::env::var("PATH").context("PATH")?;
        Ok(Self { path: format!("{}:{}:{}:{inherited}", bin.display(), python.display(), node.display()), directory })
    }
}

fn write_program(path: &Path, text: &str) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).context("make it executable")
}

fn run_document(stage: &Stage, document: &str, snippets: &[Snippet]) -> Result<()> {
    let work = stage.directory.join("work");
    let script = stage.directory.join("script.sh");
    std::fs::write(&script, script_of(document, snippets))?;
    let log = stage.directory.join("output.log");
    let output = std::fs::File::create(&log)?;
    let status = Command::new("bash")
        .arg(&script)
        .current_dir(&work)
        .env("PATH", &stage.path)
        .env("HOME", &stage.directory)
        // A cloud that somebody runs on this machine keeps its port.
        .env("SUBLET_LISTEN", "127.0.0.1:0")
        .stdin(std::process::Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status()
        .context("start bash")?;
    if !status.success() {
        bail!("{document}: a snippet failed ({status}); {}", steps::tail(&log));
    }
    Ok(())
}

/// What every script begins with. A served command has two minutes until it answers.
const PRELUDE: &str = r#"set -euo pipefail
server=
trap '[ -z "$server" ] || kill -TERM $server' EXIT
stop() {
    [ -n "$server" ] || return 0
    kill -TERM $server
    wait $server
    server=
}
ready() {
    for _ in $(seq 1200); do
        kill -0 $server
        if [ -s "$1/credentials.json" ]; then
            root=$(jq -r .api_base "$1/credentials.json")
            if curl -fsS "${root%/v1}/readyz" >/dev/null 2>&1; then return 0; fi
        fi
        sleep 0.1
    done
    return 1
}
"#;

/// Where a served command keeps its data, and so its credentials.
fn data_directory(command: &str) -> &str {
    let mut words = command.split_whitespace();
    words.find(|word| *word == "--data-dir").and_then(|_| words.next()).unwrap_or("sublet-data")
}

fn script_of(document: &str, snippets: &[Snippet]) -> String {
    let mut script = PRELUDE.to_owned();
    for snippet in snippets {
        let _ = writeln!(script, "echo '== {document}:{}'", snippet.line);
        let _ = match snippet.mode {
            Mode::Shell => writeln!(script, "{}", snippet.text),
            Mode::Serve => {
                let command = snippet.text.trim_end();
                writeln!(script, "stop\n( exec {command} ) &\nserver=$!\nready {}", data_directory(command))
            }
            Mode::Stopped => writeln!(script, "stop\n{}", snippet.text),
            Mode::Python => writeln!(script, "python - <<'SNIPPET'\n{}SNIPPET", snippet.text),
            Mode::OlderPython => writeln!(script, "python-older - <<'SNIPPET'\n{}SNIPPET", snippet.text),
            Mode::JavaScript => writeln!(script, "node --input-type=module - <<'SNIPPET'\n{}SNIPPET", snippet.text),
            Mode::NoRun => Ok(()),
        };
    }
    script.push_str("stop\necho '== end'\n");
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = "# T\n\n```sh\ntrue\n```\n\n```sh serve\nsublet up\n```\n```json\n{}\n```\n```python\nprint(1)\n```\n```python older\nprint(2)\n```\n```sh no-run\nrm x\n```\n```text\n```sh\n```\n";

    #[test]
    fn runnable_blocks_are_told_from_illustrations() {
        let found: Vec<_> = parse(DOCUMENT).into_iter().map(|snippet| (snippet.line, snippet.mode)).collect();
        assert_eq!(found, [(3, Mode::Shell), (7, Mode::Serve), (13, Mode::Python), (16, Mode::OlderPython), (19, Mode::NoRun)]);
    }

    fn run(name: &str, markdown: &str) -> Result<()> {
        let directory = std::env::temp_dir().join(format!("sublet-snippets-{}-{name}", std::process::id()));
        std::fs::create_dir_all(directory.join("work"))?;
        let stage = Stage { directory: directory.clone(), path: std::env::var("PATH")? };
        let result = run_document(&stage, "sample.md", &parse(markdown));
        std::fs::remove_dir_all(directory)?;
        result
    }

    #[test]
    fn a_failing_snippet_fails_its_document() {
        assert!(run("good", "```sh\nX=1\n```\n```sh\n[ $X = 1 ]\n```\n").is_ok());
        let error = run("bad", "```sh\necho reason; false\n```\n```sh\ntrue\n```\n").unwrap_err();
        assert!(error.to_string().contains("reason"), "{error}");
    }

    #[test]
    fn the_data_directory_is_read_from_the_command() {
        assert_eq!(data_directory("sublet up"), "sublet-data");
        assert_eq!(data_directory("sublet up --data-dir copy --listen 127.0.0.1:0"), "copy");
    }

    /// A stand-in for a cloud: answers, writes its credentials, and ends with the given status when told to.
    fn served(end_status: u8) -> String {
        format!(
            r#"```sh
cat > cloud.py <<'END'
import http.server, json, os, signal, sys
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"{{}}")
signal.signal(signal.SIGTERM, lambda *_: os._exit({end_status}))
server = http.server.HTTPServer(("127.0.0.1", 0), Ready)
os.makedirs("sublet-data", exist_ok=True)
json.dump({{"api_base": "http://127.0.0.1:%d/v1" % server.server_port}}, open("sublet-data/credentials.json", "w"))
server.serve_forever()
END
```
```sh serve
python3 cloud.py
```
```sh
curl --fail --silent "$(jq -r .api_base sublet-data/credentials.json)"
```
```sh stopped
! curl --fail --silent "$(jq -r .api_base sublet-data/credentials.json)"
```
"#
        )
    }

    #[test]
    fn a_served_command_answers_until_it_is_stopped_and_must_end_well() {
        run("answers", &served(0)).unwrap();
        assert!(run("ends-badly", &served(3)).is_err());
    }

    #[test]
    fn a_server_that_ends_by_itself_fails_its_document() {
        assert!(run("served", "```sh serve\nfalse\n```\n```sh\ntrue\n```\n").is_err());
    }
}
