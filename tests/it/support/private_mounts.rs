//! Directories of the machine, replaced for one program: it sees a test's own in the place of the real ones, in a mount namespace.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::machine::Ended;

/// What a program is to find in the place of the machine's own.
#[derive(Default)]
pub struct PrivateMounts {
    host_name: String,
    steps: Vec<[String; 3]>,
}

/// Replaces, hides and freezes as it is told (one step, its path and its source at a time, until `--`), and becomes the program.
const SETUP: &str = r#"
set -e
hostname "$1"; shift
while [ "$1" != -- ]; do
    case $1 in
        bind) mount --bind "$3" "$2" ;;
        overlay)
            if [ -d "$2" ]; then
                mkdir -p "$3/upper" "$3/work"
                mount -t overlay overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" "$2"
            fi ;;
        freeze) mount -o remount,ro,bind / ;;
        frozen)
            if [ -d "$2" ]; then
                mount --bind "$3" "$2"
                mount -o remount,ro,bind "$2"
            fi ;;
    esac
    shift 3
done
shift
exec "$@"
"#;

impl PrivateMounts {
    /// Nothing is replaced yet but the name of the machine.
    pub fn new(host_name: &str) -> Self {
        Self { host_name: host_name.to_owned(), steps: Vec::new() }
    }

    /// The file or directory `source` in the place of `path`, which exists.
    pub fn bind(self, path: impl AsRef<Path>, source: impl AsRef<Path>) -> Self {
        self.step("bind", path.as_ref(), source.as_ref())
    }

    /// What is at `path`, if anything, but written to a directory of its own.
    pub fn overlay(self, path: impl AsRef<Path>, written: impl AsRef<Path>) -> Self {
        self.step("overlay", path.as_ref(), written.as_ref())
    }

    /// The directory `source`, read-only, in the place of `path`, if there is one.
    pub fn frozen(self, path: impl AsRef<Path>, source: impl AsRef<Path>) -> Self {
        self.step("frozen", path.as_ref(), source.as_ref())
    }

    /// Everything that was not replaced becomes read-only.
    pub fn freeze(self) -> Self {
        self.step("freeze", Path::new(""), Path::new(""))
    }

    fn step(mut self, what: &str, path: &Path, source: &Path) -> Self {
        self.steps.push([what.to_owned(), path.display().to_string(), source.display().to_string()]);
        self
    }

    /// A command that runs there. Its environment is a PATH, beginning with `bin`, and a HOME.
    pub fn command(&self, bin: &Path, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--uts", "--propagation", "private"]);
        if !rustix::process::geteuid().is_root() {
            command.arg("--map-root-user");
        }
        command.args(["sh", "-c", SETUP, "sh", &self.host_name]).args(self.steps.iter().flatten()).arg("--");
        command.arg(program).args(arguments).env_clear().env("HOME", "/root").stdin(Stdio::null());
        command.env("PATH", format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        command
    }

    /// Runs it to its end.
    pub fn run(&self, bin: &Path, program: &str, arguments: &[&str]) -> Ended {
        self.command(bin, program, arguments).output().expect("unshare").into()
    }
}

/// A directory below `directory`.
pub fn directory(directory: &Path, name: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::create_dir_all(&path).expect("a directory");
    path
}
