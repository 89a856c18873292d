//! Pushing: the delivery goes to each host over ssh, and certfleet there puts it in place and bootstraps.

use futures_util::StreamExt as _;
use zeroize::Zeroizing;

use super::Fleet;
use super::bundle_object;
use super::look::LookError;
use super::progress::Progress;
use super::snapshot::Snapshot;
use crate::domain::object_key::{Generation, ObjectKey};
use crate::domain::site::SiteName;
use crate::system::error_chain::in_full;
use crate::system::ssh::{Ended, Ssh};
use crate::system::text::printable;

/// What is run on the hosts.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Remote {
    /// The program: a path, or a name that the PATH there leads to.
    pub program: String,
    /// Where the configuration comes to lie.
    pub configuration: String,
    /// How the program becomes root.
    pub becomes: Becomes,
}

/// How the program on a host becomes root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Becomes {
    /// Not at all: the user is root, or need not be.
    Nobody,
    /// By `sudo -n`, which never asks for a password.
    Root,
}

/// What became of one host.
#[derive(Clone, Debug)]
pub struct PushedHost {
    /// The host, as it was named.
    pub host: String,
    /// The answer of certfleet there, if it gave one.
    pub answer: Option<serde_json::Value>,
    /// What went wrong; `None` where everything asked for holds there.
    pub problem: Option<PushProblem>,
}

/// What went wrong at a host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PushProblem {
    /// What failed, and why.
    pub what: String,
    /// What a person can do.
    pub hint: String,
}

impl Fleet {
    /// The object of the site's highest generation, byte for byte, once it is proven that this fleet can open it.
    pub async fn current_object(&self, site: &SiteName, snapshot: &Snapshot) -> Result<String, LookError> {
        let highest = snapshot.highest(site);
        let key = ObjectKey::bundle(site, highest);
        let bytes = if highest == Generation(0) { None } else { self.store.get(&key).await? };
        let bytes = bytes.ok_or_else(|| LookError::Absent(site.clone()))?;
        bundle_object::open(&self.seal, site, highest, &bytes).map_err(|source| LookError::Unusable { key, source })?;
        // What was read as JSON is text.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Pushes to all hosts, `jobs` at once. One that fails does not keep the others waiting. The answers come in the order of the hosts.
pub async fn push(
    hosts: &[String],
    delivery: &Zeroizing<Vec<u8>>,
    remote: &Remote,
    ssh: &Ssh,
    jobs: usize,
    progress: &dyn Progress,
) -> Vec<PushedHost> {
    let one = |(number, host): (usize, &String)| {
        let host = host.clone();
        async move {
            progress.step(&host, "connecting, and delivering");
            let pushed = push_one(&host, delivery, remote, ssh).await;
            let told = pushed.problem.as_ref().map_or("done", |problem| problem.what.as_str());
            progress.step(&host, told);
            (number, pushed)
        }
    };
    let mut pushed: Vec<_> = futures_util::stream::iter(hosts.iter().enumerate().map(one)).buffer_unordered(jobs).collect().await;
    pushed.sort_by_key(|(number, _)| *number);
    pushed.into_iter().map(|(_, pushed)| pushed).collect()
}

async fn push_one(host: &str, delivery: &Zeroizing<Vec<u8>>, remote: &Remote, ssh: &Ssh) -> PushedHost {
    let mut command = match remote.becomes {
        Becomes::Nobody => Vec::new(),
        Becomes::Root => vec!["sudo", "-n", "--"],
    };
    command.extend([remote.program.as_str(), "--config", &remote.configuration, "--json", "bootstrap", "--delivery", "-"]);
    let host = host.to_owned();
    match ssh.run(&host, &command, delivery).await {
        Err(error) => {
            let problem = PushProblem { what: in_full(&error), hint: error.hint(&host) };
            PushedHost { host, answer: None, problem: Some(problem) }
        }
        Ok(ended) => {
            let answer = serde_json::from_str(&ended.stdout).ok();
            PushedHost { problem: judge(&ended, remote), answer, host }
        }
    }
}

/// What the end of certfleet on a host means. Its words come from another machine: nothing in them is believed, or printed raw.
fn judge(ended: &Ended, remote: &Remote) -> Option<PushProblem> {
    let said = |label: &str| ended.stderr.lines().find_map(|line| line.strip_prefix(label)).map(|text| printable(text.trim()));
    let last = ended.stderr.lines().map(str::trim).rfind(|line| !line.is_empty()).map(printable).unwrap_or_default();
    let absent = ended.code == Some(127) || last.ends_with("command not found");
    let (what, hint) = match ended.code {
        Some(0) => return None,
        _ if absent => {
            let hint = "install certfleet there (it is one file), or say where it is with --remote-program";
            (format!("there is no program {}: {last}", remote.program), hint.to_owned())
        }
        _ if last.starts_with("sudo: ") => (last, "let the user run certfleet there by sudo without a password".to_owned()),
        None => (format!("the connection broke: {last}"), "push again".to_owned()),
        Some(2) if said("error: ").is_some_and(|error| error.contains("--delivery")) => {
            (said("error: ").unwrap_or_default(), "update certfleet there".to_owned())
        }
        Some(code) => {
            let what = said("error: ").unwrap_or_else(|| format!("certfleet there ended with exit status {code}: {last}"));
            let hint = said("hint: ").unwrap_or_else(|| "run `certfleet bootstrap` there to see more".to_owned());
            (what, hint)
        }
    };
    Some(PushProblem { what, hint })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hosts_say_is_understood_and_never_printed_raw() {
        let remote = Remote { program: "certfleet".to_owned(), configuration: String::new(), becomes: Becomes::Root };
        for (code, stderr, what, hint) in [
            (Some(1), "note: x\nerror: no room: \u{1b}[2Jdisk full\nhint: free some\n", "no room:  [2Jdisk full", "free some"),
            (Some(127), "bash: line 1: certfleet: command not found\n", "there is no program certfleet", "--remote-program"),
            (Some(1), "sudo: certfleet: command not found\n", "there is no program certfleet", "--remote-program"),
            (Some(1), "sudo: a password is required\n", "sudo: a password is required", "without a password"),
            (Some(2), "error: unexpected argument '--delivery' found\n", "--delivery", "update certfleet"),
            (Some(4), "", "ended with exit status 4", "certfleet bootstrap"),
            (None, "Connection to x closed.\n", "the connection broke: Connection to x closed.", "push again"),
        ] {
            let ended = Ended { code, stdout: String::new(), stderr: stderr.to_owned() };
            let problem = judge(&ended, &remote).expect("a problem");
            assert!(problem.what.contains(what) && problem.hint.contains(hint), "{stderr:?}: {problem:?}");
        }
        assert_eq!(judge(&Ended { code: Some(0), stdout: String::new(), stderr: "note: x".to_owned() }, &remote), None);
    }
}
