//! Certificates that live for 160 hours, and certificates for addresses: as public CAs issue them today.

use std::time::Duration;

use serde_json::Value;

use crate::crash;
use crate::support::ca_front::{CaFront, Resource};
use crate::support::machine::{Ended, Machine};
use crate::support::pebble::{Pebble, PebbleOptions};
use crate::support::s3_in_process::InProcessS3;

const HOUR: Duration = Duration::from_secs(3_600);

/// A CA with the profiles of Let's Encrypt, a store whose clock goes on when told, and a machine.
struct Scene {
    s3: InProcessS3,
    front: CaFront,
    machine: Machine,
    _pebble: Pebble,
}

impl Scene {
    async fn wanting(identifiers: &str) -> Self {
        let profiles = vec![("classic".to_owned(), 90 * 86_400), ("shortlived".to_owned(), 160 * 3_600)];
        let pebble = Pebble::start(PebbleOptions { profiles, ..PebbleOptions::default() }).await;
        let (s3, front) = (InProcessS3::start(), CaFront::start(&pebble));
        let machine = crash::machine(&pebble, &front, &s3.bucket());
        machine.change("certfleet.toml", "[\"www.example.test\"]", identifiers);
        machine.change("certfleet.toml", "[[site]]\n", "[[site]]\nprofile = \"shortlived\"\n");
        Self { s3, front, machine, _pebble: pebble }
    }

    fn ensure(&self) -> Ended {
        self.machine.run(&["ensure", "--json"]).expect(0)
    }

    fn generation(&self) -> Value {
        self.ensure().site()["in_place"]["generation"].clone()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_160_hours_is_renewed_every_80_hours_and_not_every_night() {
    let scene = Scene::wanting("[\"www.example.test\"]").await;
    assert_eq!(scene.generation(), 1);
    // Twice a day. pebble's clock does not go on with the store's, so that the second one begins today as well.
    for hours in (12..=72).step_by(12) {
        scene.s3.advance(12 * HOUR);
        assert_eq!(scene.generation(), 1, "after {hours} hours");
    }
    scene.s3.advance(12 * HOUR);
    let site = scene.ensure().site();
    assert_eq!((&site["in_place"]["generation"], &site["due"]["rule"]), (&2.into(), &"expiry".into()), "after 84 hours");
    assert_eq!(scene.front.count(Resource::Finalize), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_get_certificates_of_the_profile_that_has_them() {
    let scene = Scene::wanting("[\"127.0.0.1\"]").await;
    scene.machine.change("certfleet.toml", "name = \"www.example.test\"", "name = \"127.0.0.1\"");
    let in_place = scene.ensure().site()["in_place"].clone();
    assert_eq!((&in_place["generation"], &in_place["issuer"]), (&1.into(), &"pebble".into()));
    let shown = scene.machine.run(&["show", "127.0.0.1"]).expect(0).stdout;
    assert!(shown.contains("127.0.0.1"), "{shown}");
}
