//! Which program listens at a port of this machine, as far as this user may know.

use std::fs;
use std::path::Path;

/// The state of a socket that listens (`TCP_LISTEN` in include/net/tcp_states.h of Linux).
const LISTENS: &str = "0A";

/// The program that listens at a TCP port, with its process: "nginx (process 812)". `None` where nobody does, or where it belongs to
/// another user and this one may not look (proc_pid_fd(5)).
pub fn of_port(port: u16) -> Option<String> {
    let inodes: Vec<_> = ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|table| inodes(Path::new(table), port)).collect();
    let wanted: Vec<_> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if wanted.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut numbered = processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse::<u32>().ok()?, entry.path())));
    numbered.find_map(|(id, process)| {
        let mut open = fs::read_dir(process.join("fd")).ok()?.flatten();
        open.find(|file| fs::read_link(file.path()).is_ok_and(|to| to.to_str().is_some_and(|to| wanted.iter().any(|one| one == to))))?;
        let name = fs::read_to_string(process.join("comm")).ok()?;
        Some(format!("{} (process {id})", super::text::printable(&name)))
    })
}

/// The inodes of the sockets that listen at a port (proc_pid_net(5): local address in the second place, state in the fourth, inode in the
/// tenth).
fn inodes(table: &Path, port: u16) -> Vec<String> {
    let text = fs::read_to_string(table).unwrap_or_default();
    let wanted = format!(":{port:04X}");
    let listening = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let listening = listening.filter(|fields| fields.len() > 9 && fields[1].ends_with(&wanted) && fields[3] == LISTENS);
    listening.map(|fields| fields[9].to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let found = of_port(port).expect("this process");
        assert!(found.ends_with(&format!("(process {})", std::process::id())), "{found}");
        drop(listener);
        assert_eq!(of_port(port), None);
    }
}
