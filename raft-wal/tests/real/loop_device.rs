//! An ext4 in a file, whose power can be cut.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long an unmount may find the file system busy: a killed process takes a moment to go.
const PATIENCE: Duration = Duration::from_secs(10);

/// `EXT4_IOC_SHUTDOWN` with `EXT4_GOING_FLAGS_NOLOGFLUSH`: from this moment on nothing reaches the
/// disk any more, neither data nor the journal. This crate forbids `unsafe`, which an `ioctl` is.
const CUT_POWER: &str = r#"
    open(my $directory, "<", $ARGV[0]) or die "open: $!";
    my $flags = pack("L", 2);
    $| = 1;
    print "ready\n";
    exit unless <STDIN>;
    ioctl($directory, 0x8004587D, $flags) or die "ioctl: $!";
"#;

/// Why this machine cannot cut the power of a file system, if it cannot.
pub(crate) fn missing() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return Some("power cuts need Linux".to_owned());
    }
    let attempt = || -> Result<(), String> {
        if output_of("id", &["-u"])? != "0\n" {
            return Err("power cuts need root".to_owned());
        }
        output_of("mkfs.ext4", &["-V"])?;
        output_of("perl", &["-v"])?;
        output_of("unshare", &["--mount", "--propagation", "private", "true"])?;
        output_of("losetup", &["--find"]).map(drop)
    };
    attempt().err()
}

/// What a program prints, or why it did not work.
fn output_of(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("power cuts need `{program}`: {error}"))?;
    let Output { status, stdout, stderr } = output;
    if !status.success() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(format!("`{program} {}`: {status}: {}", arguments.join(" "), said.trim()));
    }
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

fn must(program: &str, arguments: &[&str]) {
    output_of(program, arguments).unwrap_or_else(|error| panic!("{error}"));
}

/// An ext4 in a file, mounted from [`FileSystem::mount`] to the next cut or drop.
pub(crate) struct FileSystem {
    image: PathBuf,
    mount_point: PathBuf,
    mounted: bool,
}

impl FileSystem {
    /// A new file system of this many bytes in this directory.
    pub(crate) fn create(dir: &Path, bytes: u64) -> Self {
        let (image, mount_point) = (dir.join("image"), dir.join("mounted"));
        fs::create_dir_all(&mount_point).unwrap();
        let _ = fs::remove_file(&image);
        fs::File::create_new(&image).unwrap().set_len(bytes).unwrap();
        must("mkfs.ext4", &["-q", "-F", image.to_str().unwrap()]);
        Self { image, mount_point, mounted: false }
    }

    /// Mounts it, which replays the journal, and returns where.
    pub(crate) fn mount(&mut self) -> &Path {
        assert!(!self.mounted);
        let [image, mount_point] = [&self.image, &self.mount_point].map(|p| p.to_str().unwrap());
        // The loop device goes with the mount.
        must("mount", &["-t", "ext4", "-o", "loop", image, mount_point]);
        self.mounted = true;
        &self.mount_point
    }

    /// A finger on the switch of the mounted file system.
    pub(crate) fn switch(&self) -> Switch {
        let mut perl = Command::new("perl");
        perl.args(["-e", CUT_POWER]).arg(&self.mount_point);
        let mut perl = perl.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = String::new();
        BufReader::new(perl.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        assert_eq!(ready, "ready\n", "perl cannot open the file system");
        Switch(perl)
    }

    /// Takes it away; what was not written before a cut is lost with it. Waits for processes that
    /// were killed and still hold files.
    pub(crate) fn unmount(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while let Err(error) = output_of("umount", &[self.mount_point.to_str().unwrap()]) {
            assert!(Instant::now() < deadline, "{error}");
            sleep(Duration::from_millis(1));
        }
        self.mounted = false;
    }
}

impl Drop for FileSystem {
    fn drop(&mut self) {
        if self.mounted {
            // Lazily: a test that panics may leave files open.
            let _ = output_of("umount", &["--lazy", self.mount_point.to_str().unwrap()]);
        }
    }
}

/// Cuts the power of a file system, within microseconds.
pub(crate) struct Switch(Child);

impl Switch {
    /// Returns when the power is off.
    pub(crate) fn cut(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        let status = self.0.wait().unwrap();
        assert!(status.success(), "the power could not be cut: {status}");
    }
}
