//! The texts. In each, only tokens of base64url characters are echoed or passed on; whatever else is asked for below the path of
//! challenges is not there.

use super::{Answer, Snippet, SnippetFile};
use crate::domain::identifier::Identifier;

/// The path of a challenge, as a regular expression whose first group is the token.
const TOKEN: &str = r"^/\.well-known/acme-challenge/([A-Za-z0-9_-]+)$";

fn one(path: String, text: String) -> Vec<SnippetFile> {
    vec![SnippetFile { path, comment: "#", text }]
}

impl Snippet {
    /// The names as a server knows its sites by, an IPv6 address in brackets.
    fn names(&self) -> Vec<String> {
        let name = |identifier: &Identifier| match identifier {
            Identifier::Ip(address) if address.is_ipv6() => format!("[{address}]"),
            other => other.to_string(),
        };
        self.identifiers.iter().map(name).collect()
    }
}

pub(super) fn nginx(snippet: &Snippet) -> Vec<SnippetFile> {
    let (names, live) = (snippet.names().join(" "), &snippet.live);
    let challenges = snippet.answer.as_ref().map(|answer| {
        let action = match answer {
            Answer::Stateless(thumbprint) => format!("default_type text/plain;\n        return 200 \"$1.{thumbprint}\";"),
            Answer::Redirect(url) => format!("return 302 {url}$1;"),
        };
        // $ matches before a line end, too.
        let token = TOKEN.replace('$', r"\z");
        format!(
            "server {{
    listen 80;
    listen [::]:80;
    server_name {names};

    location ~ \"{token}\" {{
        {action}
    }}
    location /.well-known/acme-challenge/ {{
        return 404;
    }}
    location / {{
        return 301 https://$host$request_uri;
    }}
}}

"
        )
    });
    let text = format!(
        "{}server {{
    listen 443 ssl;
    listen [::]:443 ssl;
    server_name {names};
    ssl_certificate {live}/fullchain.pem;
    ssl_certificate_key {live}/privkey.pem;

    # the site itself
}}
",
        challenges.unwrap_or_default()
    );
    one(format!("/etc/nginx/conf.d/{}.conf", snippet.site.file_name()), text)
}

pub(super) fn apache(snippet: &Snippet) -> Vec<SnippetFile> {
    let live = &snippet.live;
    // A wildcard can be an alias only.
    let (stars, mut names): (Vec<_>, Vec<_>) = snippet.names().into_iter().partition(|name| name.starts_with('*'));
    if names.is_empty() {
        names.extend(stars.iter().map(|star| star.trim_start_matches("*.").to_owned()));
    }
    let aliases: Vec<_> = names.drain(1..).chain(stars).collect();
    let aliases = if aliases.is_empty() { String::new() } else { format!("    ServerAlias {}\n", aliases.join(" ")) };
    let called = format!("    ServerName {}\n{aliases}", names[0]);
    let challenges = snippet.answer.as_ref().map(|answer| {
        let action = match answer {
            Answer::Stateless(thumbprint) => {
                let location = TOKEN.replace('(', "(?<token>");
                format!(
                    "    <LocationMatch \"{location}\">
        Redirect 200 /
        ErrorDocument 200 \"%{{reqenv:MATCH_TOKEN}}.{thumbprint}\"
    </LocationMatch>
"
                )
            }
            Answer::Redirect(url) => format!("    RedirectMatch 302 \"{TOKEN}\" \"{url}$1\"\n"),
        };
        format!(
            "<VirtualHost *:80>
{called}{action}    RedirectMatch 404 \"^/\\.well-known/acme-challenge/(?![A-Za-z0-9_-]+$)\"
    RedirectMatch 301 \"^/(?!\\.well-known/acme-challenge/)(.*)$\" \"https://{}/$1\"
</VirtualHost>

",
            names[0]
        )
    });
    let text = format!(
        "{}<VirtualHost *:443>
{called}    SSLEngine on
    SSLCertificateFile {live}/fullchain.pem
    SSLCertificateKeyFile {live}/privkey.pem

    # the site itself
</VirtualHost>
",
        challenges.unwrap_or_default()
    );
    one(format!("/etc/apache2/sites-available/{}.conf", snippet.site.file_name()), text)
}

pub(super) fn lighttpd(snippet: &Snippet) -> Vec<SnippetFile> {
    let (live, file) = (&snippet.live, snippet.site.file_name());
    let script = format!("/etc/lighttpd/certfleet-{file}.lua");
    let mut files = Vec::new();
    let mut challenges = String::new();
    if let Some(answer) = &snippet.answer {
        let names = snippet.names().iter().map(|name| escaped(name)).collect::<Vec<_>>().join("|");
        let (modules, action) = match answer {
            Answer::Stateless(_) => ("\"mod_magnet\", \"mod_redirect\"", format!("magnet.attract-raw-url-to = (\"{script}\")")),
            Answer::Redirect(url) => {
                ("\"mod_redirect\"", format!("url.redirect = (\"{TOKEN}\" => \"{url}$1\")\n            url.redirect-code = 302"))
            }
        };
        challenges = format!(
            "server.modules += ({modules})

$HTTP[\"scheme\"] == \"http\" {{
    $HTTP[\"host\"] =~ \"(?i)^({names})(:[0-9]+)?$\" {{
        $HTTP[\"url\"] =~ \"^/\\.well-known/acme-challenge/\" {{
            {action}
        }} else {{
            url.redirect = (\"\" => \"https://${{url.authority}}${{url.path}}${{qsa}}\")
        }}
    }}
}}

"
        );
        if let Answer::Stateless(thumbprint) = answer {
            files.push(SnippetFile { path: script, comment: "--", text: lua(thumbprint) });
        }
    }
    let text = format!(
        "{challenges}server.modules += (\"mod_openssl\")

$SERVER[\"socket\"] == \":443\" {{
    ssl.engine = \"enable\"
    ssl.pemfile = \"{live}/combined.pem\"
}}
"
    );
    files.insert(0, SnippetFile { path: format!("/etc/lighttpd/conf-enabled/90-{file}.conf"), comment: "#", text });
    files
}

/// For mod_magnet, which is in Debian's package lighttpd-modules-lua.
fn lua(thumbprint: &str) -> String {
    format!(
        "-- for mod_magnet, which Debian has in the package lighttpd-modules-lua
local token = string.match(lighty.r.req_attr[\"uri.path-raw\"], \"^/%.well%-known/acme%-challenge/([A-Za-z0-9_-]+)$\")
if not token then return 404 end
lighty.r.resp_header[\"Content-Type\"] = \"text/plain\"
lighty.r.resp_body:set({{ token .. \".{thumbprint}\" }})
return 200
"
    )
}

fn escaped(name: &str) -> String {
    let special = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == ':' { c.to_string() } else { format!("\\{c}") };
    match name.strip_prefix("*.") {
        Some(base) => format!("[^.]+\\.{}", escaped(base)),
        None => name.chars().map(special).collect(),
    }
}

pub(super) fn haproxy(snippet: &Snippet) -> Vec<SnippetFile> {
    let live = &snippet.live;
    let challenges = snippet.answer.as_ref().map(|answer| {
        let names = snippet.names().join(" ");
        let action = match answer {
            Answer::Stateless(thumbprint) => {
                format!("http-request return status 200 content-type text/plain lf-string \"%[path,field(4,/)].{thumbprint}\"")
            }
            Answer::Redirect(url) => format!("http-request redirect code 302 location {url}%[path,field(4,/)]"),
        };
        format!(
            "frontend certfleet_http
    mode http
    bind :::80 v4v6
    acl certfleet_names req.hdr(host),host_only -i {names}
    acl certfleet_challenge path_beg /.well-known/acme-challenge/
    acl certfleet_token path -m reg ^/\\.well-known/acme-challenge/[A-Za-z0-9_-]+$
    {action} if certfleet_names certfleet_token
    http-request return status 404 if certfleet_names certfleet_challenge
    http-request redirect scheme https code 301 if certfleet_names

"
        )
    });
    let text = format!(
        "{}frontend certfleet_https
    mode http
    bind :::443 v4v6 ssl crt {live}/combined.pem
    # default_backend …
",
        challenges.unwrap_or_default()
    );
    one("/etc/haproxy/haproxy.cfg".to_owned(), text)
}

pub(super) fn caddy(snippet: &Snippet) -> Vec<SnippetFile> {
    let live = &snippet.live;
    let addresses = |scheme: &str| snippet.names().iter().map(|name| format!("{scheme}://{name}")).collect::<Vec<_>>().join(", ");
    let challenges = snippet.answer.as_ref().map(|answer| {
        let action = match answer {
            Answer::Stateless(thumbprint) => format!("respond \"{{re.token.1}}.{thumbprint}\" 200"),
            Answer::Redirect(url) => format!("redir {url}{{re.token.1}} 302"),
        };
        format!(
            "{} {{
\t@token path_regexp token {TOKEN}
\thandle @token {{
\t\t{action}
\t}}
\thandle /.well-known/acme-challenge/* {{
\t\trespond 404
\t}}
\thandle {{
\t\tredir https://{{host}}{{uri}} 301
\t}}
}}

",
            addresses("http")
        )
    });
    let text = format!(
        "{}{} {{
\ttls {live}/fullchain.pem {live}/privkey.pem
\t# the site itself
}}
",
        challenges.unwrap_or_default(),
        addresses("https")
    );
    one("/etc/caddy/Caddyfile".to_owned(), text)
}
