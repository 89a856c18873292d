//! Hooks that were written for other clients, by the wrappers that the README shows.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;

use super::{SITE, machine};
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::server::HttpServer;

/// The lines of the README that name a hook, with another hook in its place.
fn wrapper(hook: &str, ours: &str) -> String {
    let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).expect("the README");
    let lines: Vec<_> =
        readme.lines().filter(|line| line.contains(hook) && (line.starts_with("present") || line.starts_with("cleanup"))).collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    lines.join("\n").replace(hook, ours) + "\n"
}

/// Serves the files of a directory of the machine as answers.
fn serve(machine: &Machine, port: u16) -> HttpServer {
    let directory = machine.path("answers");
    let service = service_fn(move |request: Request<Incoming>| {
        let token = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let found = std::fs::read(directory.join(token));
        let mut response = Response::new(Full::new(Bytes::from(found.as_ref().cloned().unwrap_or_default())));
        if found.is_err() {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        async move { Ok::<_, Infallible>(response) }
    });
    HttpServer::start_at(port, service, None)
}

async fn runs(named: &str, hook: &str, expected: &[&str]) {
    let pebble = Pebble::start(PebbleOptions::default()).await;
    let solver = format!("kind = \"http-01\"\nmode = \"script\"\ncheck = \"127.0.0.1:{}\"\n", pebble.http_port);
    let machine = machine(&pebble, &(solver + &wrapper(named, "HOOK")), "");
    machine.change("certfleet.toml", &format!("\"{SITE}\", \"example.test\""), &format!("\"{SITE}\""));
    machine.create_dir("answers");
    machine.write("hook", hook);
    machine.change("certfleet.toml", "HOOK", &machine.path("hook").to_string_lossy());
    std::fs::set_permissions(machine.path("hook"), PermissionsExt::from_mode(0o755)).expect("a mode");
    let _server = serve(&machine, pebble.http_port);
    machine.run(&["ensure"]).expect(0);
    let calls: Vec<_> = machine.read("calls").lines().map(str::to_owned).collect();
    assert_eq!(calls, expected);
    assert_eq!(std::fs::read_dir(machine.path("answers")).expect("a directory").count(), 0, "it was called to clean up");
}

/// `prog begin|done|failed TYPE IDENT TOKEN AUTH` (uacme(1)).
#[tokio::test]
async fn hooks_of_uacme_run_by_one_line() {
    let hook = "#!/bin/sh -e\ntest $# = 5\necho \"$1 $2 $3\" >> calls\ncase \"$1\" in\nbegin) printf %s \"$5\" > \"answers/$4\" ;;\ndone) rm \"answers/$4\" ;;\n*) exit 1 ;;\nesac\n";
    runs("/usr/share/uacme/uacme.sh", hook, &["begin http-01 www.example.test", "done http-01 www.example.test"]).await;
}

/// `prog deploy_challenge|clean_challenge DOMAIN TOKEN_FILENAME TOKEN_VALUE` (dehydrated, docs/examples/hook.sh).
#[tokio::test]
async fn hooks_of_dehydrated_run_by_one_line() {
    let hook = "#!/bin/sh -e\ntest $# = 4\necho \"$1 $2\" >> calls\ncase \"$1\" in\ndeploy_challenge) printf %s \"$4\" > \"answers/$3\" ;;\nclean_challenge) rm \"answers/$3\" ;;\nesac\n";
    runs("/etc/dehydrated/hook.sh", hook, &["deploy_challenge www.example.test", "clean_challenge www.example.test"]).await;
}
