//! The stock image, which runs on any Linux machine of this CPU.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::{env, fs};

use mitogen::Image;

use super::run;

/// The stock image. `make test` says where it is; else it is made here, once.
#[track_caller]
pub fn stock_image() -> Image {
    Image::file(stock_image_path()).unwrap()
}

/// The bytes of the stock image, uncompressed.
pub fn stock_image_bytes() -> Vec<u8> {
    fs::read(stock_image_path()).unwrap()
}

/// The same, compressed; made once.
pub fn packed_stock_image() -> &'static [u8] {
    static PACKED: OnceLock<Vec<u8>> = OnceLock::new();
    PACKED.get_or_init(|| {
        let output = Command::new("gzip").arg("-9nc").arg(stock_image_path()).output().unwrap();
        assert!(output.status.success());
        output.stdout
    })
}

/// What gzip makes of these bytes.
pub fn packed(bytes: &[u8]) -> &'static [u8] {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plain");
    fs::write(&path, bytes).unwrap();
    let output = Command::new("gzip").arg("-nc").arg(&path).output().unwrap();
    assert!(output.status.success());
    output.stdout.leak()
}

fn stock_image_path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| match env::var_os("MITOGEN_TEST_IMAGE") {
        Some(path) => path.into(),
        None => make_image(env::consts::ARCH),
    })
}

/// The stock image for another CPU, from the same folder; made if it is not there.
#[track_caller]
pub fn stock_image_for(cpu: &str) -> Image {
    let beside = stock_image_path().with_file_name(format!("linux-{cpu}"));
    let path = if beside.exists() { beside } else { make_image(cpu) };
    Image::file(path).unwrap()
}

fn make_image(cpu: &str) -> PathBuf {
    let name = format!("target/agents/linux-{cpu}");
    make(&[&name]);
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Has make make these.
#[track_caller]
pub fn make(targets: &[&str]) {
    let mut make = Command::new("make");
    make.current_dir(env!("CARGO_MANIFEST_DIR")).arg("-s").args(targets);
    // What cargo and make set for what they run is not meant for another make and its cargo.
    for (name, _) in env::vars_os().filter(|(name, _)| name != "CARGO_HOME") {
        if name.to_string_lossy().starts_with("CARGO") || name.to_string_lossy().starts_with("MAKE")
        {
            make.env_remove(name);
        }
    }
    run(&mut make);
}
