//! The toolkit's five DNS providers and Route 53: real orders, where a fake takes the place of each interface. It refuses what the provider's
//! documentation does not describe, and puts what it is told into bind9, where pebble looks. It is reached as the real one is where the
//! way out is a proxy: `CONNECT` to the provider's host, with a root that the machine trusts.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::support::bind9::{Bind9, KEY, KEY_NAME, Zone};
use crate::support::machine::Machine;
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::process::{program, run};
use crate::support::server::HttpServer;
use crate::support::tls;

/// What every credential is.
const SECRET: &str = "hush-hush/hush+hush";

/// One provider: where it is, how it wants to be told who asks, and its answers.
struct Cloud {
    name: &'static str,
    host: &'static str,
    credentials: &'static [&'static str],
    /// Panics where a request does not prove who sent it.
    authentic: fn(&Request<()>),
    answer: fn(&Request<()>, &str, &mut Records) -> Option<String>,
}

/// The TXT records of the one zone: id, name below the zone, value.
struct Records {
    list: Vec<(u64, String, String)>,
    next: u64,
    server: std::net::SocketAddr,
}

impl Records {
    fn add(&mut self, name: &str, value: &str) -> u64 {
        self.next += 1;
        self.list.push((self.next, name.to_owned(), value.to_owned()));
        self.update(&format!("add {name}.example.test. 1 TXT \"{value}\""));
        self.next
    }

    fn remove(&mut self, id: u64) {
        let at = self.list.iter().position(|(other, ..)| *other == id).expect("a record of that id");
        let (_, name, value) = self.list.remove(at);
        self.update(&format!("delete {name}.example.test. TXT \"{value}\""));
    }

    fn update(&self, change: &str) {
        let script = format!(
            "server {} {}\nkey hmac-sha256:{KEY_NAME} {KEY}\nzone example.test\nupdate {change}\nsend\n",
            self.server.ip(),
            self.server.port()
        );
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), script).expect("a script");
        run(Command::new(program("nsupdate")).arg(file.path()));
    }

    fn json(&self, record: fn(u64, &str, &str) -> Value) -> Vec<Value> {
        self.list.iter().map(|(id, name, value)| record(*id, name, value)).collect()
    }
}

fn bearer(request: &Request<()>) {
    assert_eq!(request.headers()["authorization"], format!("Bearer {SECRET}"));
}

fn sent(body: &str) -> Value {
    serde_json::from_str(body).expect("a body of JSON")
}

fn text<'v>(body: &'v Value, key: &str) -> &'v str {
    body[key].as_str().unwrap_or_else(|| panic!("no {key} in {body}"))
}

fn last_id(path: &str) -> Option<u64> {
    path.rsplit_once('/')?.1.parse().ok()
}

/// <https://docs.digitalocean.com/reference/api/reference/domain-records/>
fn digitalocean(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    let path = request.uri().path();
    let record = |id, name: &str, value: &str| json!({ "id": id, "type": "TXT", "name": name, "data": value, "ttl": 60 });
    let below = path.strip_prefix("/v2/domains/example.test/records")?;
    Some(match (request.method().as_str(), below) {
        ("GET", "") => json!({ "domain_records": records.json(record), "links": {}, "meta": { "total": 1 } }).to_string(),
        ("POST", "") => {
            let body = sent(body);
            assert_eq!(body["type"], "TXT");
            let id = records.add(text(&body, "name"), text(&body, "data"));
            json!({ "domain_record": record(id, text(&body, "name"), text(&body, "data")) }).to_string()
        }
        ("DELETE", _) => {
            records.remove(last_id(path)?);
            String::new()
        }
        _ => return None,
    })
}

/// <https://developers.cloudflare.com/api/resources/dns/subresources/records/>: text in quotes stays in quotes.
fn cloudflare(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    let path = request.uri().path().strip_prefix("/client/v4/zones")?;
    let done = |result: Value| json!({ "success": true, "errors": [], "messages": [], "result": result }).to_string();
    let record = |id, name: &str, value: &str| json!({ "id": format!("{id}"), "type": "TXT", "name": format!("{name}.example.test"), "content": format!("\"{value}\""), "ttl": 60 });
    Some(match (request.method().as_str(), path) {
        ("GET", "") => done(json!([{ "id": "z1", "name": "example.test" }])),
        ("GET", "/z1/dns_records") => done(records.json(record).into()),
        ("POST", "/z1/dns_records") => {
            let body = sent(body);
            assert_eq!(body["type"], "TXT");
            let name = text(&body, "name").trim_end_matches(".example.test").to_owned();
            let value = text(&body, "content").trim_matches('"').to_owned();
            let id = records.add(&name, &value);
            done(record(id, &name, &value))
        }
        ("DELETE", below) => {
            let id = last_id(below.strip_prefix("/z1/dns_records")?)?;
            records.remove(id);
            done(json!({ "id": id.to_string() }))
        }
        _ => return None,
    })
}

/// <https://techdocs.akamai.com/linode-api/reference/post-domain-record>
fn linode(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    let path = request.uri().path().strip_prefix("/v4/domains")?;
    let page = |data: Value| json!({ "data": data, "page": 1, "pages": 1, "results": 1 }).to_string();
    let record = |id, name: &str, value: &str| json!({ "id": id, "type": "TXT", "name": name, "target": value, "ttl_sec": 300 });
    Some(match (request.method().as_str(), path) {
        ("GET", "") => page(json!([{ "id": 7, "domain": "example.test" }])),
        ("GET", "/7/records") => page(records.json(record).into()),
        ("POST", "/7/records") => {
            let body = sent(body);
            assert_eq!(body["type"], "TXT");
            let id = records.add(text(&body, "name"), text(&body, "target"));
            record(id, text(&body, "name"), text(&body, "target")).to_string()
        }
        ("DELETE", below) => {
            records.remove(last_id(below.strip_prefix("/7/records")?)?);
            "{}".to_owned()
        }
        _ => return None,
    })
}

/// <https://docs.vultr.com/api/>, "dns": text goes in quotes.
fn vultr(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    let path = request.uri().path();
    let record = |id: u64, name: &str, value: &str| json!({ "id": id.to_string(), "type": "TXT", "name": name, "data": format!("\"{value}\""), "priority": -1, "ttl": 60 });
    let below = path.strip_prefix("/v2/domains/example.test/records")?;
    Some(match (request.method().as_str(), below) {
        ("GET", "") => json!({ "records": records.json(record), "meta": { "total": 1, "links": { "next": "", "prev": "" } } }).to_string(),
        ("POST", "") => {
            let body = sent(body);
            assert_eq!(body["type"], "TXT");
            let value = text(&body, "data").trim_matches('"').to_owned();
            let id = records.add(text(&body, "name"), &value);
            json!({ "record": record(id, text(&body, "name"), &value) }).to_string()
        }
        ("DELETE", _) => {
            records.remove(last_id(path)?);
            String::new()
        }
        _ => return None,
    })
}

/// <https://openapi-v2.exoscale.com/topic/topic-api-request-signature>
fn exoscale_signed(request: &Request<()>) {
    let signature = request.headers()["authorization"].to_str().expect("text");
    assert!(signature.starts_with(&format!("EXO2-HMAC-SHA256 credential={SECRET},")), "{signature}");
    assert!(signature.contains("expires=") && signature.contains("signature="), "{signature}");
}

/// <https://openapi-v2.exoscale.com/group/endpoint-dns>
fn exoscale(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    let path = request.uri().path().strip_prefix("/v2/dns-domain")?;
    let record =
        |id: u64, name: &str, value: &str| json!({ "id": id.to_string(), "type": "TXT", "name": name, "content": value, "ttl": 60 });
    let done = |id: u64| json!({ "id": "o1", "state": "success", "reference": { "id": id.to_string() } }).to_string();
    Some(match (request.method().as_str(), path) {
        ("GET", "") => json!({ "dns-domains": [{ "id": "d1", "unicode-name": "example.test" }] }).to_string(),
        ("GET", "/d1/record") => json!({ "dns-domain-records": records.json(record) }).to_string(),
        ("POST", "/d1/record") => {
            let body = sent(body);
            assert_eq!(body["type"], "TXT");
            done(records.add(text(&body, "name"), text(&body, "content").trim_matches('"')))
        }
        ("DELETE", below) => {
            let id = last_id(below.strip_prefix("/d1/record")?)?;
            records.remove(id);
            done(id)
        }
        _ => return None,
    })
}

/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html>
fn aws_signed(request: &Request<()>) {
    let signature = request.headers()["authorization"].to_str().expect("text");
    assert!(signature.starts_with(&format!("AWS4-HMAC-SHA256 Credential={SECRET}/")), "{signature}");
    assert!(signature.contains("/us-east-1/route53/aws4_request, SignedHeaders=") && signature.contains("host;"), "{signature}");
    assert!(request.headers().contains_key("x-amz-date"));
}

/// <https://docs.aws.amazon.com/Route53/latest/APIReference/API_ChangeResourceRecordSets.html>: an `UPSERT` replaces the whole record.
fn route53(request: &Request<()>, body: &str, records: &mut Records) -> Option<String> {
    const HEAD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;
    const SPACE: &str = r#"xmlns="https://route53.amazonaws.com/doc/2013-04-01/""#;
    let path = request.uri().path().strip_prefix("/2013-04-01/")?;
    Some(match (request.method().as_str(), path) {
        ("GET", "hostedzonesbyname") => format!(
            "{HEAD}<ListHostedZonesByNameResponse {SPACE}><HostedZones><HostedZone><Id>/hostedzone/Z1</Id><Name>example.test.</Name>\
             <CallerReference>1</CallerReference><Config><PrivateZone>false</PrivateZone></Config>\
             <ResourceRecordSetCount>3</ResourceRecordSetCount></HostedZone></HostedZones><IsTruncated>false</IsTruncated>\
             <MaxItems>100</MaxItems></ListHostedZonesByNameResponse>"
        ),
        ("GET", "hostedzone/Z1/rrset") => {
            let (_, name) = request.uri().query()?.split('&').find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == "name"))?;
            let label = name.trim_end_matches('.').trim_end_matches(".example.test").to_owned();
            let mut values = String::new();
            for (_, _, value) in records.list.iter().filter(|(_, other, _)| *other == label) {
                write!(values, "<ResourceRecord><Value>\"{value}\"</Value></ResourceRecord>").expect("a string");
            }
            let set = format!(
                "<ResourceRecordSet><Name>{label}.example.test.</Name><Type>TXT</Type><TTL>60</TTL>\
                 <ResourceRecords>{values}</ResourceRecords></ResourceRecordSet>"
            );
            let sets = if values.is_empty() { String::new() } else { set };
            format!(
                "{HEAD}<ListResourceRecordSetsResponse {SPACE}><ResourceRecordSets>{sets}</ResourceRecordSets>\
                 <IsTruncated>false</IsTruncated><MaxItems>300</MaxItems></ListResourceRecordSetsResponse>"
            )
        }
        ("POST", "hostedzone/Z1/rrset") => {
            let between = |from: &str, to: &str| body.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found);
            assert_eq!(between("<Type>", "</Type>"), Some("TXT"), "{body}");
            assert!(body.contains(&format!("<ChangeResourceRecordSetsRequest {SPACE}>")), "{body}");
            let label = between("<Name>", "</Name>")?.trim_end_matches('.').trim_end_matches(".example.test").to_owned();
            let wanted: Vec<String> = match between("<Action>", "</Action>")? {
                "UPSERT" => {
                    let values = body.split("<Value>").skip(1).filter_map(|rest| rest.split_once("</Value>"));
                    values.map(|(value, _)| value.replace("&quot;", "\"").trim_matches('"').to_owned()).collect()
                }
                "DELETE" => Vec::new(),
                other => panic!("{other} is no action"),
            };
            let old = records.list.iter().filter(|(_, name, value)| *name == label && !wanted.contains(value)).map(|(id, ..)| *id);
            for id in old.collect::<Vec<_>>() {
                records.remove(id);
            }
            for value in wanted {
                if !records.list.iter().any(|(_, name, other)| *name == label && *other == value) {
                    records.add(&label, &value);
                }
            }
            format!(
                "{HEAD}<ChangeResourceRecordSetsResponse {SPACE}><ChangeInfo><Id>/change/C1</Id><Status>PENDING</Status>\
                 <SubmittedAt>2026-01-01T00:00:00Z</SubmittedAt></ChangeInfo></ChangeResourceRecordSetsResponse>"
            )
        }
        _ => return None,
    })
}

/// A proxy that lets nobody but `host` be reached, and leads there to `to`.
async fn proxy(listener: TcpListener, host: &'static str, to: std::net::SocketAddr) {
    loop {
        let Ok((mut client, _)) = listener.accept().await else { return };
        tokio::spawn(async move {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(client.read_u8().await?);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            if !head.starts_with(&format!("CONNECT {host}:443 ")) {
                return client.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n").await;
            }
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            let mut server = TcpStream::connect(to).await?;
            copy_bidirectional(&mut client, &mut server).await.map(drop)
        });
    }
}

impl Cloud {
    fn serve(self: &Arc<Self>, records: &Arc<Mutex<Records>>) -> (HttpServer, String) {
        let (tls, root_pem) = tls::server_config(&[self.host.to_owned()]);
        let (cloud, records) = (Arc::clone(self), Arc::clone(records));
        let service = service_fn(move |request: Request<Incoming>| {
            let (cloud, records) = (Arc::clone(&cloud), Arc::clone(&records));
            async move {
                let (parts, body) = request.into_parts();
                let request = Request::from_parts(parts, ());
                let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                (cloud.authentic)(&request);
                let mut records = records.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = (cloud.answer)(&request, &String::from_utf8_lossy(&body), &mut records);
                let status = match &answer {
                    Some(text) if text.is_empty() => StatusCode::NO_CONTENT,
                    Some(_) => StatusCode::OK,
                    None => StatusCode::BAD_REQUEST,
                };
                let mut response = Response::new(Full::new(Bytes::from(answer.unwrap_or_else(|| format!("no {}", request.uri())))));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        (HttpServer::start(service, Some(tls)), root_pem)
    }

    /// A name and its wildcard, so that two values share a record.
    async fn proves_a_name_and_its_wildcard(self) {
        let cloud = Arc::new(self);
        let bind9 = Bind9::primary(&[Zone::new("example.test", "")]);
        let pebble = Pebble::start(PebbleOptions { dns_server: Some(bind9.address), ..PebbleOptions::default() }).await;
        let records = Arc::new(Mutex::new(Records { list: Vec::new(), next: 0, server: bind9.address }));
        let (api, root_pem) = cloud.serve(&records);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let proxy_url = format!("http://{}", listener.local_addr().expect("an address"));
        let proxying = tokio::spawn(proxy(listener, cloud.host, api.address));
        let credentials = cloud.credentials.iter().map(|name| format!("{name} = {{ env = \"SECRET\" }}")).collect::<Vec<_>>().join(", ");
        let machine = Machine::new(&format!(
            r#"
            [[site]]
            name = "www.example.test"
            identifiers = ["www.example.test", "*.www.example.test"]
            issuers = ["pebble"]
            [issuer.pebble]
            kind = "acme"
            directory = "{}"
            trust = "pebble.pem"
            chain_trust = "issued.pem"
            [solver.dns]
            kind = "dns-01"
            provider = "{}"
            resolver = "{}"
            credentials = {{ {credentials} }}
            "#,
            pebble.directory_url(),
            cloud.name,
            bind9.address,
        ));
        machine.write("pebble.pem", pebble.root_pem());
        machine.write("issued.pem", pebble.issuance_root_pem());
        machine.write("root.pem", root_pem);
        let mut command = machine.command(&["ensure"]);
        command.env("SECRET", SECRET).env("HTTPS_PROXY", proxy_url).env("NO_PROXY", "127.0.0.1");
        command.env("SSL_CERT_FILE", machine.path("root.pem"));
        let ended = tokio::task::spawn_blocking(move || command.output().expect("the binary")).await.expect("no panic");
        let errors = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{}: {errors}", cloud.name);
        assert_eq!(pebble.issued(), 1);
        let records = records.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!((records.next, records.list.len()), (2, 0), "{}: two values were put there, and none is left", cloud.name);
        proxying.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn digitalocean_is_told_what_its_documentation_says() {
    let (host, credentials) = ("api.digitalocean.com", &["DO_AUTH_TOKEN"]);
    let cloud = Cloud { name: "digitalocean", host, credentials, authentic: bearer, answer: digitalocean };
    cloud.proves_a_name_and_its_wildcard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare_is_told_what_its_documentation_says() {
    let (host, credentials) = ("api.cloudflare.com", &["CF_DNS_API_TOKEN"]);
    Cloud { name: "cloudflare", host, credentials, authentic: bearer, answer: cloudflare }.proves_a_name_and_its_wildcard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn linode_is_told_what_its_documentation_says() {
    let (host, credentials) = ("api.linode.com", &["LINODE_TOKEN"]);
    Cloud { name: "linode", host, credentials, authentic: bearer, answer: linode }.proves_a_name_and_its_wildcard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vultr_is_told_what_its_documentation_says() {
    let (host, credentials) = ("api.vultr.com", &["VULTR_API_KEY"]);
    Cloud { name: "vultr", host, credentials, authentic: bearer, answer: vultr }.proves_a_name_and_its_wildcard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exoscale_is_told_what_its_documentation_says() {
    let (host, credentials) = ("api-ch-gva-2.exoscale.com", &["EXOSCALE_API_KEY", "EXOSCALE_API_SECRET"]);
    let cloud = Cloud { name: "exoscale", host, credentials, authentic: exoscale_signed, answer: exoscale };
    cloud.proves_a_name_and_its_wildcard().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn route_53_is_told_what_its_documentation_says() {
    let (host, credentials) = ("route53.amazonaws.com", &["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"]);
    Cloud { name: "route53", host, credentials, authentic: aws_signed, answer: route53 }.proves_a_name_and_its_wildcard().await;
}
