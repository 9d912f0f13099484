//! Where output goes: a terminal, a pipe, or a file that is replaced atomically.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::Path;
use std::str::FromStr;

use anyhow::Context as _;

use crate::exit::UsageError;

/// A report format with the file it goes to; stdout without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) format: Format,
    pub(crate) path: Option<std::path::PathBuf>,
}

/// A report format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Text,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            other => Err(format!("there is no format `{other}`; the formats are text and json")),
        }
    }
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (format, path) = match text.split_once('=') {
            Some((_, "")) => return Err("the path after `=` is empty".to_owned()),
            Some((format, path)) => (format, Some(path.into())),
            None => (text, None),
        };
        Ok(Self { format: format.parse()?, path })
    }
}

/// Writes styled `text` to stdout; the styles are stripped where they are not wanted. A reader that went away (`| head`)
/// is no error.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let styled = text.contains('\x1b');
    let mut stdout: Box<dyn io::Write> =
        if styled { Box::new(anstream::stdout().lock()) } else { Box::new(io::stdout().lock()) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Writes `text` to the file `path`, which is replaced in one step and readable by its owner only. `-` is stdout; a
/// device or a pipe is written to as it is.
pub(crate) fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    if path.as_os_str() == "-" {
        return print(text);
    }
    let replace = || -> io::Result<()> {
        // What a symbolic link leads to is replaced, not the link.
        let path = &path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if path.metadata().is_ok_and(|there| !there.is_file()) {
            return std::fs::OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes());
        }
        // The name of the temporary file, which the error has, means nothing to the user.
        let mut file = tempfile::NamedTempFile::new_in(folder(path)).map_err(|error| error.kind())?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        Ok(())
    };
    replace().with_context(|| format!("cannot write {}", path.display()))
}

/// Makes sure that the folder of `path` is there, so that no work is done whose result could not be kept.
pub(crate) fn expect_folder(path: &Path) -> Result<(), UsageError> {
    match folder(path).metadata() {
        Ok(folder) if folder.is_dir() => Ok(()),
        _ => {
            let message = format!("cannot write {}: {} is no folder", path.display(), folder(path).display());
            Err(UsageError::new(message, "make the folder first, or give another path"))
        }
    }
}

/// Returns the folder that the file `path` is in.
fn folder(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns the width to lay text out for: the terminal's, `COLUMNS`, or the widest that is comfortable to read.
pub(crate) fn width() -> usize {
    terminal_width().unwrap_or(seaworthy_report::MAX_WIDTH)
}

/// Returns the width of the terminal, or `COLUMNS`, as far as text is laid out for it; none where neither is there.
pub(crate) fn terminal_width() -> Option<usize> {
    let stdout = io::stdout();
    let columns = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let terminal = || {
        let size = rustix::termios::tcgetwinsize(&stdout).ok()?;
        Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
    };
    let width: Option<usize> = if stdout.is_terminal() { columns.or_else(terminal) } else { columns };
    width.map(|width| width.clamp(seaworthy_report::MIN_WIDTH, seaworthy_report::MAX_WIDTH))
}
