//! A backup of a file into an object store: with a progress bar, interrupted and gone on with, verified, and read in parts.
//!
//! `cargo run --example files` makes up a file and plays the whole story on a private nats-server; `-- --file PATH` takes yours,
//! and `--nats URL` your server, on which it uses the bucket `example_backups`, and deletes it.

use futures_util::TryStreamExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use nats_service::async_nats::{self, jetstream};
use nats_service::{ObjectStore, Progress, StoreError, UploadToken};
use nats_service_testkit::TestServer;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// What is made up when no file is given.
const SIZE: usize = 64 << 20;
const BUCKET: &str = "example_backups";

#[tokio::main]
async fn main() -> Result {
    let (url, file) = arguments()?;
    // Kept until the end: the server dies with this value, and the folder, too.
    let (_private, url) = match url {
        Some(url) => (None, url),
        None => {
            let server = TestServer::start().await?;
            let url = server.url().to_owned();
            (Some(server), url)
        }
    };
    let folder = tempfile::tempdir()?;
    let file = match file {
        Some(file) => file,
        None => make_up(folder.path()).await?,
    };

    let js = jetstream::new(async_nats::connect(url).await?);
    let config = jetstream::object_store::Config {
        bucket: BUCKET.to_owned(),
        ..Default::default()
    };
    js.create_object_store(config).await?;
    let backups = ObjectStore::<()>::bind(js.clone(), BUCKET)?;
    back_up(&backups, &file, folder.path()).await?;
    restore(&backups, &file).await?;
    tidy_up(&backups).await?;
    js.delete_object_store(BUCKET).await?;
    Ok(())
}

/// Uploads the file; the first attempt breaks off in the middle.
async fn back_up(backups: &ObjectStore<()>, file: &Path, folder: &Path) -> Result {
    let size = tokio::fs::metadata(file).await?.len();
    let today = backups.object("today")?;
    let kept = folder.join("upload.token");

    let upload = today.upload().resumable().total(size);
    tokio::fs::write(&kept, upload.token().to_string()).await?;
    let bar = bar("upload", size);
    // The power fails, say: the source gives half of its bytes and then nothing, and nobody waits any more.
    let half = File::open(file).await?.take(size / 2).chain(Silence);
    let broken = upload.on_progress(show(&bar)).read_from(half);
    let broken = tokio::time::timeout(Duration::from_secs(2), broken).await;
    assert!(broken.is_err(), "the first half is no upload");
    bar.abandon_with_message("the power failed");

    // Later, in another process, there is the token, and the source from its start.
    let token: UploadToken = tokio::fs::read_to_string(&kept).await?.parse()?;
    let bar = self::bar("upload", size);
    let upload = backups.resume(&token)?.total(size).on_progress(show(&bar));
    let upload = upload
        .description("a backup")
        .content_type("application/octet-stream");
    let info = upload.read_from(File::open(file).await?).await?;
    bar.finish_with_message("stored");
    println!(
        "{}: {} bytes in {} chunks, {}",
        info.name,
        info.size,
        info.chunks,
        info.digest.unwrap_or_default()
    );
    Ok(())
}

/// Downloads it as a whole, and a part of it.
async fn restore(backups: &ObjectStore<()>, file: &Path) -> Result {
    let today = backups.object("today")?;
    let mut reader = today.reader().await?.ok_or("no backup")?;
    let bar = bar("download", reader.length());
    reader = reader.on_progress(show(&bar));
    // It ends with all the bytes, verified, or with an error.
    let bytes = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    bar.finish_with_message("verified");

    let last = bytes.saturating_sub(16);
    let mut tail = Vec::new();
    today
        .range(last..)
        .await?
        .ok_or("no backup")?
        .read_to_end(&mut tail)
        .await?;
    assert!(tokio::fs::read(file).await?.ends_with(&tail));
    println!("its last bytes, alone: {tail:02x?}");
    Ok(())
}

/// Names, links, equal bytes, and what is left over.
async fn tidy_up(backups: &ObjectStore<()>) -> Result {
    let today = backups.object("today")?;
    today.rename("2026-01-31").await?;
    let kept = backups.object("2026-01-31")?;
    kept.describe(|meta| {
        meta.metadata
            .insert("keep until".to_owned(), "2027".to_owned());
    })
    .await?;
    backups.object("latest")?.link_to(&kept).await?;
    match kept.rename("latest").await {
        Err(StoreError::ObjectExists { name }) => println!("there is a `{name}` already"),
        other => return Err(format!("{other:?}").into()),
    }
    for day in ["mon", "tue", "wed"] {
        let settings = backups.object(format!("settings/{day}"))?;
        settings.upload().shared().bytes("nothing changed").await?;
    }
    let mut list = backups.list().await?;
    while let Some(info) = list.try_next().await? {
        let kind = match (&info.link, info.is_shared()) {
            (_, true) => "shared",
            (Some(_), _) => "a link",
            (None, _) => "an object",
        };
        println!("{:>12} bytes  {:<14} {kind}", info.size, info.name);
    }
    let removed = backups
        .remove_orphans(Duration::from_secs(24 * 60 * 60))
        .await?;
    println!("{} uploads of yesterday came to nothing", removed.uploads);
    Ok(())
}

fn bar(what: &'static str, size: u64) -> ProgressBar {
    let style = "{prefix:>9} [{bar:30}] {bytes} of {total_bytes}, {binary_bytes_per_sec} {msg}";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(size).with_style(style).with_prefix(what)
}

/// Progress reports, as a bar shows them.
fn show(bar: &ProgressBar) -> impl FnMut(Progress) + Send + 'static {
    let bar = bar.clone();
    move |progress| {
        if progress.resumed > 0 && progress.bytes == progress.resumed {
            // What was there counts as done, and not as fast.
            bar.set_position(progress.resumed);
            bar.reset_eta();
        }
        bar.set_position(progress.bytes);
    }
}

/// A reader that never has anything.
struct Silence;

impl tokio::io::AsyncRead for Silence {
    fn poll_read(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        _: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::task::Poll::Pending
    }
}

async fn make_up(folder: &Path) -> Result<PathBuf> {
    let file = folder.join("a file");
    let bytes: Vec<u8> = (0..SIZE)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    tokio::fs::write(&file, bytes).await?;
    Ok(file)
}

fn arguments() -> Result<(Option<String>, Option<PathBuf>)> {
    let (mut url, mut file) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--nats" => url = Some(value()?),
            "--file" => file = Some(PathBuf::from(value()?)),
            other => {
                return Err(format!("`{other}`: usage: files [--nats URL] [--file PATH]").into());
            }
        }
    }
    Ok((url, file))
}
