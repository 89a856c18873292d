//! Ports, document roots, programs, and where names lead.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::{Found, examine};
use crate::support::machine::{Ended, Machine};
use crate::support::namespace::{Namespace, Network};
use crate::support::process::{Subprocess, run};

/// A machine with a CA that nobody answers for: only its solver is looked at.
fn machine(identifiers: &str, solver: &str) -> Machine {
    Machine::new(&format!(
        "contact = \"ops@example.test\"\n[[site]]\nname = \"www.example.test\"\nidentifiers = [{identifiers}]\nissuers = [\"corp\"]\n\
         solver = \"answers\"\n[issuer.corp]\nkind = \"acme\"\ndirectory = \"https://127.0.0.1:1/directory\"\n[solver.answers]\n{solver}"
    ))
}

#[test]
fn a_port_that_is_taken_is_found_out_with_its_holder() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let machine = machine("\"localhost.example.test\"", &format!("kind = \"http-01\"\nlisten = \"{address}\"\n"));
    let holder = format!("(process {})", std::process::id());
    examine(&machine).expect("port", "failed", &["cannot listen", &holder, "webroot"]);
    drop(listener);
    examine(&machine).expect("port", "ok", &["is free"]);
    machine.change("certfleet.toml", &address.to_string(), "192.0.2.1:80");
    examine(&machine).expect("port", "failed", &["is not an address of this machine"]);
}

#[test]
fn programs_and_credentials_that_are_missing_are_found_out() {
    let machine = machine("\"*.example.test\"", "kind = \"dns-01\"\nprovider = \"script:example\"\n");
    examine(&machine).expect("settings", "failed", &["provider.toml"]);
    machine.create_dir("providerscripts/dns/example");
    machine.write(
        "providerscripts/dns/example/provider.toml",
        "name = \"Example\"\ndocumentation = \"https://dns.example\"\n[credentials]\nTOKEN = \"a token\"\n",
    );
    machine.write("providerscripts/dns/example/run", "#!/bin/sh\n");
    examine(&machine).expect("settings", "failed", &["not executable", "chmod +x"]);
    std::fs::set_permissions(machine.path("providerscripts/dns/example/run"), PermissionsExt::from_mode(0o755)).expect("a mode");
    examine(&machine).expect("settings", "failed", &["TOKEN"]);
    machine.write("token", "secret");
    machine.write("certfleet.toml", machine.read("certfleet.toml") + "credentials = { TOKEN = { file = \"token\" } }\n");
    let found = examine(&machine);
    found.expect("settings", "ok", &["complete"]);
    assert!(found.all("names").is_empty(), "dns-01 needs no address");

    machine.change("certfleet.toml", "provider = \"script:example\"\n", "present = [\"./hook\", \"present\"]\ncleanup = [\"true\"]\n");
    let found = examine(&machine);
    found.expect("program", "failed", &["present", "hook", "chmod +x"]);
    assert_eq!(found.all("program")[1]["verdict"], "ok");
    machine.write("hook", "#!/bin/sh\nexit 1\n");
    std::fs::set_permissions(machine.path("hook"), PermissionsExt::from_mode(0o755)).expect("a mode");
    examine(&machine).expect("program", "ok", &[]);
}

/// A machine of a network of its own, on which the binary runs.
struct Host {
    namespace: Namespace,
    machine: Machine,
}

impl Host {
    fn examine(&self) -> Found {
        let mut command: Command = self.namespace.command("sh");
        command
            .args(["-c", "cd \"$1\" && exec \"$2\" doctor --json", "sh"])
            .arg(self.machine.path(""))
            .arg(env!("CARGO_BIN_EXE_certfleet"));
        command.stdin(Stdio::null());
        Found::of(&Ended::from(command.output().expect("the binary")))
    }

    fn serve(&self, directory: &str) -> Subprocess {
        self.machine.create_dir(directory);
        let mut server = self.namespace.command("python3");
        server.args(["-m", "http.server", "--bind", "0.0.0.0", "--directory"]).arg(self.machine.path(directory)).arg("80");
        let server = Subprocess::spawn(&server, self.machine.path("server.log"));
        self.namespace.wait_for(&format!("http://{}/", self.namespace.address));
        server
    }
}

#[test]
fn a_document_root_is_written_to_and_its_server_asked_at_every_address_of_each_name() {
    let network = Network::start();
    let (own, other) = (network.host("own"), network.host("other"));
    let address = own.address;
    let machine = machine(&format!("\"www.example.test\", \"{address}\""), "kind = \"http-01\"\nmode = \"webroot\"\npath = \"public\"\n");
    let host = Host { namespace: own, machine };
    host.machine.write("hosts", format!("{address} www.example.test\n"));
    run(host.namespace.command("mount").arg("--bind").arg(host.machine.path("hosts")).arg("/etc/hosts"));

    host.examine().expect("webroot", "failed", &["public", "set path to"]);
    host.machine.create_dir("public");
    host.examine().expect("webroot", "ok", &[]).expect("served", "failed", &["no connection to", "port 80"]);
    let server = host.serve("public");
    host.examine().expect("names", "ok", &["2 names"]).expect("served", "ok", &["2 addresses"]);
    assert_eq!(std::fs::read_dir(host.machine.path("public")).expect("a directory").count(), 0, "nothing is left there");

    // The name also leads to a machine that does not answer, or not with the file.
    host.machine.write("hosts", format!("{address} www.example.test\n{} www.example.test\n", other.address));
    host.examine().expect("served", "failed", &["www.example.test", &format!("no connection to {}:80", other.address)]);
    host.machine.write("hosts", "");
    host.examine().expect("names", "failed", &["www.example.test", "make an A or AAAA record"]);
    host.machine.write("hosts", format!("{address} www.example.test\n"));
    drop(server);
    let _server = host.serve("elsewhere");
    host.examine().expect("served", "failed", &["404", "set path to the directory"]);
}
