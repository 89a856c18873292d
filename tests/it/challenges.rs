//! How challenges are answered: from the configuration of real servers, from a bucket that everybody may read, and on port 443; and what is
//! said where the CA would not find the answer.

use bytes::Bytes;
use http::header::HOST;
use http::{Request, Response};

use crate::support::http::HttpClient;
use crate::support::machine::Machine;
use crate::support::pebble::Pebble;
use crate::support::tls;

mod hooks;
mod looking;
mod redirect;
mod servers;
mod stateless;
mod tls_alpn;

const SITE: &str = "www.example.test";

/// A machine whose one site is to come from pebble, with this solver and these further tables.
fn machine(pebble: &Pebble, solver: &str, more: &str) -> Machine {
    let machine = Machine::new(&format!(
        "contact = \"ops@example.test\"\n{more}\n[[site]]\nname = \"{SITE}\"\nidentifiers = [\"{SITE}\", \"example.test\"]\nissuers = [\"pebble\"]\n\
         solver = \"answers\"\n[issuer.pebble]\nkind = \"acme\"\ndirectory = \"{}\"\ntrust = \"pebble-tls.pem\"\nchain_trust = \"pebble-root.pem\"\n\
         [solver.answers]\n{solver}",
        pebble.directory_url()
    ));
    machine.write("pebble-tls.pem", pebble.root_pem());
    machine.write("pebble-root.pem", pebble.issuance_root_pem());
    machine
}

/// Whether the CA was told that an answer is there.
fn was_told(pebble: &Pebble) -> bool {
    pebble.log().contains("POST /chalZ/")
}

/// Asks a server of [`SITE`] for the answer to a token, written as it is.
async fn ask(port: u16, token: &str) -> Response<Bytes> {
    let client = HttpClient::trusting(&tls::server_config(&["unused".to_owned()]).1);
    let request = Request::get(format!("http://127.0.0.1:{port}/.well-known/acme-challenge/{token}")).header(HOST, SITE);
    client.send(request.body(Bytes::new()).expect("a request")).await
}

/// What no CA sends as a token, and a stranger may.
const ODD: [&str; 9] = ["", "a.b", "a/b", "a%20b", "a%0Ab", "a%0A", "%3Cscript%3E", "../../etc/passwd", "..%2F..%2Fetc%2Fpasswd"];
