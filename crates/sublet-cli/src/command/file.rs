//! `sublet files`.

use std::fs::File as LocalFile;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use sublet_api::client::{Client, FileUpload};
use sublet_api::file::{ArchivedFile, ArchivedFileListQuery, File, FileListQuery};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::file::FilePurpose;
use sublet_core::id::{FileId, ProjectId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Bytes of a content that are read at once.
const READ_BYTES: usize = 64 * 1024;

/// Files of the project.
#[derive(Subcommand, Debug)]
pub enum FileCommand {
    /// List files
    List {
        /// Only those for this: batch, batch_output, fine-tune, assistants, vision, user_data or evals
        #[arg(long)]
        purpose: Option<FilePurpose>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one file, without its content
    #[command(visible_alias = "get")]
    Show { id: FileId },
    /// Send a local file to the cloud
    Upload(UploadArgs),
    /// Print a file's content
    Content {
        id: FileId,
        /// Write it into this file instead; it appears when it is whole
        #[arg(long, short, value_name = "PATH")]
        output: Option<PathBuf>,
    },
    /// Delete a file that no running batch reads
    Delete { id: FileId },
    /// What archived projects still keep, with an admin key or an operator's
    #[command(subcommand)]
    Archived(ArchivedFileCommand),
}

/// Files of archived projects.
#[derive(Subcommand, Debug)]
pub enum ArchivedFileCommand {
    /// List them
    List {
        /// Only those of this project
        #[arg(long)]
        project: Option<ProjectId>,
        /// Of every organization; with an operator key
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Delete one: it costs nothing from then on
    Delete {
        id: FileId,
        /// Of any organization; with an operator key
        #[arg(long)]
        any: bool,
    },
}

impl ArchivedFileCommand {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { project, all, page } => {
                let order = page.order();
                let query = ArchivedFileListQuery { project, limit: page.limit, after: page.after, before: None, order };
                let list = if all { client.all_archived_files(&query)? } else { client.archived_files(&query)? };
                show_page(context, &list, archived_table)
            }
            Self::Delete { id, any } => {
                let deleted = if any { client.delete_any_archived_file(&id)? } else { client.delete_archived_file(&id)? };
                context.show(&deleted, |deleted| Table::of_fields(vec![("deleted", Cell::text(&deleted.id))]))
            }
        }
    }
}

fn archived_table(files: &[ArchivedFile]) -> Table {
    let rows = files.iter().map(|file| {
        [
            Cell::text(file.id.as_str()),
            Cell::text(file.project.as_str()),
            Cell::text(&file.purpose),
            Cell::number(render::bytes(file.bytes)),
            Cell::text(render::unix(file.created_at)),
            Cell::optional(file.filename.as_deref().map(render::plain)),
        ]
    });
    Table::new(["file", "project", "purpose", "size", "created", "name"], "no archived project keeps a file").rows(rows)
}

/// What to send, and for how long.
#[derive(Args, Debug)]
pub struct UploadArgs {
    pub path: PathBuf,
    /// What it is for: batch, fine-tune, assistants, vision, user_data or evals
    #[arg(long, default_value = "batch")]
    pub purpose: FilePurpose,
    /// Hours after which it is deleted by itself; it stays if left out
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=720))]
    pub expires_after_hours: Option<u32>,
}

impl FileCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        match self {
            Self::List { purpose, page } => {
                let (order, purpose) = (page.order(), purpose.map(|purpose| purpose.as_str().to_owned()));
                let query = FileListQuery { purpose, limit: page.limit, after: page.after, before: None, order };
                let list = context.client()?.files(&query)?;
                show_page(context, &list, table)
            }
            Self::Show { id } => {
                let file = context.client()?.file(&id)?;
                context.show(&file, |file| Table::of_fields(fields(file)))
            }
            Self::Upload(args) => {
                let file = args.upload(context)?;
                context.show(&file, |file| Table::of_fields(fields(file)))
            }
            Self::Content { id, output } => {
                let client = context.client()?;
                let download = Download::file(&client, &id)?;
                match output {
                    None => print(context, download),
                    Some(path) => save(context, download, &path),
                }
            }
            Self::Archived(command) => command.run(context),
            Self::Delete { id } => {
                let deleted = context.client()?.delete_file(&id)?;
                context.show(&deleted, |deleted| Table::of_fields(vec![("deleted", Cell::text(&deleted.id))]))
            }
        }
    }
}

impl UploadArgs {
    pub(super) fn upload(self, context: &Context<'_>) -> Result<File> {
        let (content, bytes) = open(&self.path)?;
        let filename = self.path.file_name().map_or_else(|| "upload".to_owned(), |name| name.to_string_lossy().into_owned());
        let upload = FileUpload {
            filename,
            purpose: self.purpose.as_str().to_owned(),
            expires_after_seconds: self.expires_after_hours.map(|hours| hours * 3_600),
            bytes,
            content: Box::new(content),
        };
        context.client()?.upload_file(upload, &context.fresh_key())
    }
}

/// Opens a plain file that has something in it, and says how long it is.
pub(super) fn open(path: &Path) -> Result<(LocalFile, u64)> {
    let unusable = |why: String| Error::new(ErrorCode::Usage, format!("{} cannot be sent: {why}", path.display()));
    let file = LocalFile::open(path).map_err(|error| unusable(error.to_string()))?;
    let found = file.metadata().map_err(|error| unusable(error.to_string()))?;
    if !found.is_file() {
        return Err(unusable("it is not a plain file".to_owned()));
    }
    if found.len() == 0 {
        return Err(unusable("it is empty".to_owned()));
    }
    Ok((file, found.len()))
}

/// What comes from the cloud in pieces: its name, and what reads it.
pub(super) struct Download<'a> {
    pub name: &'a str,
    pub content: Box<dyn Read + Send>,
}

impl<'a> Download<'a> {
    pub fn file(client: &Client, id: &'a FileId) -> Result<Self> {
        Ok(Self { name: id.as_str(), content: client.file_content(id)? })
    }
}

/// Hands a content over piece by piece.
fn copy(download: Download<'_>, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let Download { name, mut content } = download;
    let (mut buffer, mut total) = (vec![0; READ_BYTES], 0_u64);
    loop {
        let count = content.read(&mut buffer).map_err(|error| {
            Error::new(ErrorCode::Unreachable, format!("the content of {name} broke off at byte {total}: {error}"))
                .alternative("get it again, with --output PATH")
        })?;
        let Some(bytes @ [_, ..]) = buffer.get(..count) else { return Ok(total) };
        take(bytes)?;
        total = total.saturating_add(u64::try_from(count).unwrap_or(u64::MAX));
    }
}

/// Prints a content.
pub(super) fn print(context: &mut Context<'_>, download: Download<'_>) -> Result<()> {
    copy(download, |bytes| context.write_data(bytes)).map(drop)
}

/// Writes a content into a file, which has all of it or is not there.
pub(super) fn save(context: &mut Context<'_>, download: Download<'_>, path: &Path) -> Result<()> {
    let failed =
        |error: std::io::Error| Error::new(ErrorCode::StorageFull, format!("{} cannot be written: {error}", path.display()));
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut file = LocalFile::create(&partial).map_err(failed)?;
    let written = copy(download, |bytes| file.write_all(bytes).map_err(failed))
        .and_then(|bytes| std::fs::rename(&partial, path).map(|()| bytes).map_err(failed));
    if written.is_err() {
        // The first failure is the one to be told.
        let _ = std::fs::remove_file(&partial);
    }
    context.note(&format!("{}: {}", path.display(), render::bytes(written?)))
}

fn fields(file: &File) -> Vec<(&'static str, Cell)> {
    vec![
        ("file", Cell::text(file.id.as_str())),
        ("name", Cell::text(render::plain(&file.filename))),
        ("purpose", Cell::text(&file.purpose)),
        ("size", Cell::text(render::bytes(file.bytes))),
        ("sha256", Cell::text(&file.sha256)),
        ("created", Cell::text(render::unix(file.created_at))),
        ("expires", Cell::optional(file.expires_at.map(render::unix))),
    ]
}

fn table(files: &[File]) -> Table {
    let rows = files.iter().map(|file| {
        [
            Cell::text(file.id.as_str()),
            Cell::text(&file.purpose),
            Cell::number(render::bytes(file.bytes)),
            Cell::text(render::unix(file.created_at)),
            Cell::optional(file.expires_at.map(render::unix)),
            Cell::text(render::plain(&file.filename)),
        ]
    });
    let headings = ["file", "purpose", "size", "created", "expires", "name"];
    Table::new(headings, "no files yet; send one with 'sublet files upload PATH'").rows(rows)
}
