//! A person at a terminal: pastes a chain and a key that are not shown, and gets the terminal back as it was.

use std::io::{Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::*;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command on a terminal of its own (`script` of util-linux). Dropping it kills it, with whatever it started.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: mpsc::Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    /// Runs `certfleet` with these arguments: says its process id before, and its exit code and the state of the terminal after it.
    fn run(machine: &Machine, arguments: &str) -> Self {
        let binary = machine.command(&[]);
        let identified = format!("sh -c 'echo \"process $$.\"; exec \"$0\" \"$@\"' {} {arguments}", binary.get_program().display());
        let inside = format!("trap : INT; {identified}; echo \"exit $?\"; stty -a; echo the end");
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--echo", "always", "--command", &inside, "/dev/null"])
            .env_clear()
            .env("SHELL", "/bin/sh")
            .env("NO_COLOR", "1");
        command.envs(binary.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(machine.path("")).process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("script");
        let (keyboard, mut output) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let (sender, screen) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut buffer) {
                if sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, screen, shown: String::new() }
    }

    /// Waits until the screen has shown `text`.
    #[track_caller]
    fn wait_for(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let piece = self.screen.recv_timeout(left).unwrap_or_else(|_| panic!("no {text:?} on the screen:\n{}", self.shown));
            self.shown += &String::from_utf8_lossy(&piece);
        }
    }

    /// Sends `certfleet` a SIGTERM.
    #[track_caller]
    fn terminate(&self) {
        let id = self.shown.split_once("process ").and_then(|(_, after)| after.split_once('.')).expect("a process id").0;
        let process = id.parse().ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(process, Signal::TERM).expect("a living process");
    }

    fn send(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).and_then(|()| self.keyboard.flush()).expect("a terminal");
    }

    /// Waits for the end: the terminal must be as it was.
    #[track_caller]
    fn finish(mut self, code: i32) -> String {
        self.wait_for("the end");
        assert!(self.shown.contains(&format!("exit {code}\r\n")), "{}", self.shown);
        for mode in ["echo", "isig", "icanon"] {
            assert!(self.shown.split_whitespace().any(|word| word == mode), "{mode} is off:\n{}", self.shown);
        }
        assert!(self.shown.contains("eol = <undef>"), "{}", self.shown);
        std::mem::take(&mut self.shown)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A chain and its key, in files beside which the binary runs, and as text.
fn supply() -> (Machine, String, String) {
    let donor = Machine::new("");
    donor.run(&["ensure", SITE]).expect(0);
    let read = |name: &str| std::fs::read_to_string(donor.files(SITE).join(name)).expect("a file");
    let chain = read("fullchain.pem") + &donor.read("runtimedata/local-ca/root.pem");
    (Machine::new("[[site]]\nname = \"www.example.test\"\nmethod = \"manual\"\n"), chain, read("privkey.pem"))
}

/// A line in the middle of a PEM block.
fn secret_line(key: &str) -> &str {
    key.lines().nth(1).expect("a line")
}

#[test]
fn a_paste_is_taken_and_not_shown() {
    for command in ["import www.example.test", "ensure"] {
        let (machine, chain, key) = supply();
        let mut terminal = Terminal::run(&machine, command);
        terminal.wait_for("End with a line that holds a single dot");
        terminal.send(&format!("{chain}{key}.\n"));
        let shown = terminal.finish(0);
        assert!(shown.contains("www.example.test  valid until") && shown.contains("supplied and published now"), "{shown}");
        assert!(!shown.contains(secret_line(&key)) && !shown.contains(secret_line(&chain)), "{shown}");
        assert_eq!(machine.run(&["ensure", "--json"]).expect(0).site()["in_place"]["generation"], 1);
    }
}

#[test]
fn ctrl_c_gives_up_and_leaves_the_terminal_as_it_was() {
    for command in ["import www.example.test", "ensure"] {
        let (machine, _, key) = supply();
        let mut terminal = Terminal::run(&machine, command);
        terminal.wait_for("Ctrl-C gives up");
        terminal.send(&format!("{key}half a line\u{3}"));
        let shown = terminal.finish(75);
        assert!(shown.contains("interrupted: nothing of it was kept") && !shown.contains(secret_line(&key)), "{shown}");
        assert!(!machine.files(SITE).exists());
    }
}

#[test]
fn a_paste_that_is_refused_says_why_and_the_other_sites_are_told_of() {
    let (machine, chain, _) = supply();
    machine.write("certfleet.toml", machine.read("certfleet.toml") + "[[site]]\nname = \"a.example.test\"\nissuers = [\"self-signed\"]\n");
    let mut terminal = Terminal::run(&machine, "ensure");
    terminal.wait_for("End with a line");
    terminal.send(&format!("{chain}.\n"));
    let shown = terminal.finish(1);
    assert!(shown.contains("error: www.example.test: the certificate was refused: there is no private key in the paste"), "{shown}");
    assert!(shown.contains("a.example.test  valid until"), "{shown}");
}

/// A chain in `chain.pem`, and its key in `encrypted.pem`, whose password is `a-long-secret`.
fn supply_files() -> Machine {
    let (machine, chain, key) = supply();
    machine.write("chain.pem", chain);
    machine.write("key.pem", key);
    let encrypt = ["pkey", "-in", "key.pem", "-aes256", "-passout", "pass:a-long-secret", "-out", "encrypted.pem"];
    crate::support::process::run(Command::new("openssl").args(encrypt).current_dir(machine.path("")));
    machine
}

#[test]
fn passwords_are_asked_for_and_not_shown() {
    let machine = supply_files();
    let import = "import www.example.test --fullchain chain.pem --privkey encrypted.pem";
    for (keys, code, said) in [
        ("\u{3}", 75, "interrupted"),
        ("wrong\n", 1, "the password does not open the private key"),
        ("a-long-secret\n", 0, "supplied and published now"),
    ] {
        let mut terminal = Terminal::run(&machine, import);
        terminal.wait_for("password of the private key");
        terminal.send(keys);
        let shown = terminal.finish(code);
        assert!(shown.contains(said) && !shown.contains("a-long-secret"), "{shown}");
    }
}

#[test]
fn a_signal_ends_a_question_and_leaves_the_terminal_as_it_was() {
    let files = "--fullchain chain.pem --privkey encrypted.pem";
    for (command, question) in [
        ("import www.example.test", "Ctrl-C gives up"),
        ("ensure", "Ctrl-C gives up"),
        (&format!("import www.example.test {files}"), "password of the private key"),
        (&format!("ensure www.example.test {files}"), "password of the private key"),
        (&format!("ensure www.example.test --dry-run {files}"), "password of the private key"),
    ] {
        let machine = supply_files();
        let mut terminal = Terminal::run(&machine, command);
        terminal.wait_for(question);
        terminal.terminate();
        let shown = terminal.finish(75);
        assert!(shown.contains("interrupted: nothing of it was kept"), "{command}: {shown}");
        assert!(!machine.files(SITE).exists());
    }
}

#[test]
fn ctrl_c_ends_a_run_that_waits_for_another_one() {
    let machine = Machine::new("");
    machine.run(&["ensure", SITE]).expect(0);
    let lock = std::fs::File::open(machine.path("runtimedata/local/default/.certfleet/lock")).expect("a lock");
    lock.lock().expect("locked");
    let mut terminal = Terminal::run(&machine, "ensure www.example.test");
    terminal.wait_for(&format!("process {} is at work here: waiting for it to end", std::process::id()));
    terminal.send("\u{3}");
    let shown = terminal.finish(75);
    assert!(shown.contains("error: interrupted") && shown.contains("nothing was done"), "{shown}");
}
