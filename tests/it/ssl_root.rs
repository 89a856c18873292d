//! The files on a webserver: every state that a directory can be found in. Some give files to other users, and so need root.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use certfleet::domain::bundle::Bundle;
use certfleet::domain::object_key::Generation;
use certfleet::domain::site::SiteName;
use certfleet::target::ssl_root::{Contents, Files, Live, Owner, SslRoot, SslRootError};
use rustix::fs::{Mode, OFlags, openat};

use crate::support::tls::bundle;

const SITE: &str = "www.example.test";
const ONE: Generation = Generation(1);
const TWO: Generation = Generation(2);

/// A root in a directory of its own.
struct Node {
    directory: tempfile::TempDir,
    root: SslRoot,
    bundles: Vec<Bundle>,
}

impl Node {
    fn new() -> Self {
        Self::with(None, 0o600, Files::Separate)
    }

    fn with(owner: Option<Owner>, key_mode: u32, files: Files) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let root = SslRoot::new(directory.path().join("ssl"), owner, key_mode, files);
        Self { directory, root, bundles: vec![bundle(&[SITE]), bundle(&[SITE])] }
    }

    fn contents(&self, generation: Generation) -> Contents<'_> {
        let index = usize::from(generation != ONE);
        Contents { bundle: &self.bundles[index], object: [&b"object 1"[..], b"object 2"][index] }
    }

    fn stage(&self, generation: Generation) {
        self.root.stage(&site(), generation, &self.contents(generation)).expect("staged");
    }

    fn holds(&self, generation: Generation) -> bool {
        self.root.holds(&site(), generation, &self.contents(generation))
    }

    fn live(&self) -> Live {
        self.root.live(&site()).expect("a look")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("ssl").join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a directory")).expect("a directory");
        fs::write(self.path(name), text).expect("a file");
    }

    fn link(&self, name: &str, target: &str) {
        fs::create_dir_all(self.path(name).parent().expect("a directory")).expect("a directory");
        symlink(target, self.path(name)).expect("a link");
    }

    /// The names in a directory, sorted.
    fn names(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(name)).expect("a directory");
        let mut names: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

fn site() -> SiteName {
    SITE.parse().expect("a site")
}

/// Permission bits, user and group.
fn access(path: &Path) -> (u32, u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.permissions().mode() & 0o7777, metadata.uid(), metadata.gid())
}

#[test]
fn a_generation_has_its_files_with_their_owners_and_modes() {
    let group = Owner::find("root:www-data").expect("Debian's users");
    for (owner, key_mode, directory, expected) in [
        (Some(group), 0o640, 0o750, (0, group.gid)),
        (Some(group), 0o600, 0o700, (0, group.gid)),
        (Some(Owner::find("nobody").expect("Debian's users")), 0o400, 0o700, (65534, 65534)),
        (None, 0o600, 0o700, (0, 0)),
    ] {
        let node = Node::with(owner, key_mode, Files::WithCombined);
        node.stage(ONE);
        let (uid, gid) = expected;
        let here = format!("archive/{SITE}/1");
        for (name, mode) in
            [("cert.pem", 0o644), ("chain.pem", 0o644), ("fullchain.pem", 0o644), ("privkey.pem", key_mode), ("combined.pem", key_mode)]
        {
            assert_eq!(access(&node.path(&format!("{here}/{name}"))), (mode, uid, gid), "{name}");
        }
        assert_eq!(access(&node.path(&format!("{here}/bundle.json"))), (0o600, 0, 0));
        let _ = node.root.switch(&site(), ONE).expect("switched");
        for name in ["", "archive", "live", &format!("archive/{SITE}"), &here] {
            assert_eq!(access(&node.path(name)), (directory, uid, gid), "{name:?}");
        }
        assert_eq!(node.read(&format!("live/{SITE}/fullchain.pem")), node.bundles[0].chain_pem());
        assert_eq!(node.read(&format!("live/{SITE}/combined.pem")), *node.bundles[0].combined_pem());
        assert_eq!(node.root.object(&site(), ONE).expect("read").as_deref(), Some(&b"object 1"[..]));
        assert_eq!(node.root.object(&site(), TWO).expect("nothing"), None);
        assert!(node.holds(ONE) && !node.holds(TWO));
        assert_eq!(node.names("archive"), [SITE]);
        assert_eq!(node.names(""), ["archive", "live"]);
    }
}

#[test]
fn directories_that_are_there_keep_their_modes() {
    let node = Node::with(Some(Owner::find("root:www-data").expect("Debian's users")), 0o640, Files::Separate);
    for (name, mode) in [("live", 0o755), ("archive", 0o711), ("", 0o701)] {
        fs::create_dir_all(node.path(name)).expect("a directory");
        fs::set_permissions(node.path(name), PermissionsExt::from_mode(mode)).expect("a mode");
    }
    node.stage(ONE);
    let _ = node.root.switch(&site(), ONE).expect("switched");
    let found = ["live", "archive", ""].map(|name| access(&node.path(name)));
    assert_eq!(found, [(0o755, 0, 0), (0o711, 0, 0), (0o701, 0, 0)]);
}

#[test]
fn whatever_was_altered_is_noticed_and_put_right_in_one_step() {
    type Alteration = fn(&Path);
    let alterations: [(&str, Alteration); 10] = [
        ("missing", |generation| fs::remove_file(generation.join("chain.pem")).expect("removed")),
        ("mixed", |generation| fs::write(generation.join("privkey.pem"), &*bundle(&[SITE]).key().to_pem()).expect("written")),
        ("cut short", |generation| fs::write(generation.join("cert.pem"), "").expect("written")),
        // As long as before, and of the same time.
        ("rewritten", |generation| {
            let path = generation.join("cert.pem");
            let (mut text, before) = (fs::read(&path).expect("a file"), fs::metadata(&path).expect("a file").modified().expect("a time"));
            text.reverse();
            fs::write(&path, text).expect("written");
            fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(before)).expect("a time");
        }),
        ("opened up", |generation| fs::set_permissions(generation.join("privkey.pem"), PermissionsExt::from_mode(0o644)).expect("a mode")),
        ("given away", |generation| std::os::unix::fs::chown(generation.join("privkey.pem"), Some(65534), None).expect("an owner")),
        ("a link", |generation| {
            fs::rename(generation.join("privkey.pem"), generation.join("elsewhere")).expect("moved");
            symlink("elsewhere", generation.join("privkey.pem")).expect("a link");
        }),
        ("the object", |generation| fs::write(generation.join("bundle.json"), "{}").expect("written")),
        ("the directory", |generation| fs::set_permissions(generation, PermissionsExt::from_mode(0o777)).expect("a mode")),
        ("all of it", |generation| fs::remove_dir_all(generation).expect("removed")),
    ];
    for (what, alter) in alterations {
        let node = Node::new();
        node.stage(ONE);
        let _ = node.root.switch(&site(), ONE).expect("switched");
        let stamp = node.root.stamp(&site(), ONE).expect("a stamp");
        node.stage(ONE);
        assert_eq!(node.root.stamp(&site(), ONE), Some(stamp.clone()), "what holds is left alone");
        alter(&node.path(&format!("archive/{SITE}/1")));
        assert!(!node.holds(ONE), "{what}");
        assert_ne!(node.root.stamp(&site(), ONE), Some(stamp), "{what}");
        assert_eq!(node.live(), Live::Ours(ONE), "{what}");
        node.stage(ONE);
        assert!(node.holds(ONE) && node.root.stamp(&site(), ONE).is_some(), "{what}");
        assert_eq!(node.names(&format!("archive/{SITE}")), ["1"], "{what}");
    }
}

#[test]
fn what_is_found_at_live_is_told_apart() {
    let ours = format!("../archive/{SITE}/7");
    for (what, lay, expected) in [
        ("nothing", "", Live::Absent),
        ("our link, which dangles", ours.as_str(), Live::Ours(Generation(7))),
        ("a link to another site", "../archive/other.example.test/7", refused("../archive/other.example.test/7")),
        ("a number that is not ours", &format!("../archive/{SITE}/007"), refused(&format!("../archive/{SITE}/007"))),
        ("a longer way", &format!("../archive/{SITE}/7/"), refused(&format!("../archive/{SITE}/7/"))),
        ("somebody's link, which dangles", "/no/such/place", refused("/no/such/place")),
        ("somebody's link", "/etc", refused("/etc")),
        ("a link that plays with terminals", "/a\u{1b}[2Jb", refused("/a [2Jb")),
    ] {
        let node = Node::new();
        if !lay.is_empty() {
            node.link(&format!("live/{SITE}"), lay);
        }
        assert_eq!(node.live(), expected, "{what}");
    }
    let node = Node::new();
    node.write(&format!("live/{SITE}"), "text");
    assert_eq!(node.live(), Live::Refused("a file".to_owned()));
    let node = Node::new();
    node.write(&format!("live/{SITE}/fullchain.pem"), "text");
    assert_eq!(node.live(), Live::Directory);
}

fn refused(target: &str) -> Live {
    Live::Refused(format!("a link of somebody else's, to {target}"))
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    for lay in [None, Some("/etc"), Some("/no/such/place"), Some("../archive/other.example.test/1")] {
        let node = Node::new();
        let live = format!("live/{SITE}");
        match lay {
            None => node.write(&live, "a person's"),
            Some(target) => node.link(&live, target),
        }
        node.stage(ONE);
        let error = node.root.switch(&site(), ONE).expect_err("refused");
        assert!(matches!(&error, SslRootError::Refused { path, .. } if *path == node.path(&live)), "{error:?}");
        assert!(error.to_string().starts_with(&format!("{} is a ", node.path(&live).display())), "{error}");
        assert!(error.hint().contains("nothing was changed"), "{}", error.hint());
        match lay {
            None => assert_eq!(node.read(&live), "a person's"),
            Some(target) => assert_eq!(fs::read_link(node.path(&live)).expect("a link"), Path::new(target)),
        }
    }
    let node = Node::new();
    node.write(&format!("archive/{SITE}/1"), "a person's");
    let error = node.root.stage(&site(), ONE, &node.contents(ONE)).expect_err("refused");
    assert!(error.to_string().ends_with("archive/www.example.test/1 is not a directory"), "{error}");
    assert!(matches!(node.root.switch(&site(), TWO), Err(SslRootError::NotStaged(_))));
}

#[test]
fn a_switch_can_be_taken_back() {
    let node = Node::new();
    node.stage(ONE);
    node.stage(TWO);
    let first = node.root.switch(&site(), ONE).expect("switched");
    assert_eq!((first.from_generation(), node.live()), (None, Live::Ours(ONE)));
    node.root.switch_back(first).expect("back");
    assert_eq!((node.live(), node.names("live")), (Live::Absent, Vec::new()));

    let _ = node.root.switch(&site(), ONE).expect("switched");
    let second = node.root.switch(&site(), TWO).expect("switched");
    assert_eq!((second.from_generation(), node.live()), (Some(ONE), Live::Ours(TWO)));
    node.root.switch_back(second.clone()).expect("back");
    assert_eq!(node.live(), Live::Ours(ONE));
    assert!(matches!(node.root.switch_back(second), Err(SslRootError::Refused { .. })), "twice is not the same as once");
    assert_eq!(node.live(), Live::Ours(ONE));

    let same = node.root.switch(&site(), ONE).expect("nothing to do");
    node.root.switch_back(same).expect("nothing to do");
    assert_eq!(
        (node.live(), node.names("live"), node.names(&format!("archive/{SITE}"))),
        (Live::Ours(ONE), vec![SITE.to_owned()], vec!["1".to_owned(), "2".to_owned()])
    );
}

/// certbot's layout: `live/<site>` is a directory of links into `archive/<site>`, where we keep our generations too.
#[test]
fn certbots_directory_is_adopted_and_its_links_go_on_to_work() {
    let node = Node::new();
    for (name, text) in [("fullchain", "certbot's chain"), ("privkey", "certbot's key")] {
        node.write(&format!("archive/{SITE}/{name}3.pem"), text);
        node.link(&format!("live/{SITE}/{name}.pem"), &format!("../../archive/{SITE}/{name}3.pem"));
    }
    let chain = format!("live/{SITE}/fullchain.pem");
    node.stage(ONE);
    let switched = node.root.switch(&site(), ONE).expect("adopted");
    let kept = node.path(&format!("archive/{SITE}+adopted"));
    assert_eq!((switched.adopted(), node.live()), (Some(kept.as_path()), Live::Ours(ONE)));
    assert_eq!(node.read(&chain), node.bundles[0].chain_pem());
    assert_eq!(node.read(&format!("archive/{SITE}+adopted/privkey.pem")), "certbot's key");

    node.root.switch_back(switched).expect("back");
    assert_eq!((node.live(), node.read(&chain).as_str()), (Live::Directory, "certbot's chain"));
    assert_eq!(node.names("archive"), [SITE]);
}

#[test]
fn a_second_directory_is_kept_beside_the_first() {
    let node = Node::new();
    node.stage(ONE);
    for (round, kept) in ["+adopted", "+adopted-2", "+adopted-3"].into_iter().enumerate() {
        let text = format!("key {round}");
        node.write(&format!("live/{SITE}/privkey.pem"), &text);
        let switched = node.root.switch(&site(), ONE).expect("adopted");
        assert!(switched.adopted().is_some_and(|path| path.ends_with(format!("{SITE}{kept}"))), "{switched:?}");
        assert_eq!(node.read(&format!("archive/{SITE}{kept}/privkey.pem")), text);
        fs::remove_file(node.path(&format!("live/{SITE}"))).expect("a link");
    }
}

#[test]
fn what_killed_runs_left_behind_is_no_matter_and_goes() {
    let node = Node::new();
    // Killed while it adopted, before the exchange: our link lies where the directory was to be kept.
    node.write(&format!("live/{SITE}/privkey.pem"), "the toolkit's");
    node.link(&format!("archive/{SITE}+adopted"), &format!("../archive/{SITE}/1"));
    // While it staged, and while it linked.
    node.write(&format!("archive/{SITE}/.certfleet-0123/privkey.pem"), "half");
    node.link(&format!("archive/{SITE}/.certfleet-4567"), &format!("../archive/{SITE}/1"));
    node.stage(ONE);
    let switched = node.root.switch(&site(), ONE).expect("adopted");
    assert_eq!(switched.adopted(), Some(node.path(&format!("archive/{SITE}+adopted")).as_path()));
    assert_eq!(node.read(&format!("archive/{SITE}+adopted/privkey.pem")), "the toolkit's");
    node.root.prune(&site(), &[ONE]).expect("pruned");
    assert_eq!(node.names(&format!("archive/{SITE}")), ["1"]);
    assert_eq!(node.names("archive"), [SITE.to_owned(), format!("{SITE}+adopted")]);
}

#[test]
fn pruning_takes_what_is_ours_and_not_wanted() {
    let node = Node::new();
    node.root.prune(&site(), &[]).expect("nothing there");
    for generation in 1..=5 {
        node.stage(Generation(generation));
    }
    node.write(&format!("archive/{SITE}/privkey1.pem"), "certbot's");
    node.write(&format!("archive/{SITE}/6/notes.txt"), "a person's");
    let _ = node.root.switch(&site(), Generation(3)).expect("switched");
    node.root.prune(&site(), &[Generation(5)]).expect("pruned");
    assert_eq!(node.names(&format!("archive/{SITE}")), ["3", "5", "6", "privkey1.pem"], "what is served stays in any case");
    assert_eq!(node.live(), Live::Ours(Generation(3)));
}

/// Key and chain, found through one look-up of `live/<site>`; `None` where that directory has been replaced and removed since.
fn pair(live: &Path) -> Option<[String; 2]> {
    let directory = rustix::fs::open(live, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("always there");
    let read = |name| {
        let file = openat(&directory, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = String::new();
        fs::File::from(file).read_to_string(&mut text).expect("readable");
        Some(text)
    };
    Some([read("fullchain.pem")?, read("privkey.pem")?])
}

#[test]
fn no_reader_ever_finds_a_mixture() {
    let node = Node::new();
    node.stage(ONE);
    node.stage(TWO);
    let _ = node.root.switch(&site(), ONE).expect("switched");
    let expected = node.bundles.iter().map(|bundle| [bundle.chain_pem(), bundle.key().to_pem().to_string()]).collect::<Vec<_>>();
    let live = node.root.live_path(&site());
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = [0; 2];
            for _ in 0..10_000 {
                let Some(found) = pair(&live) else { continue };
                let which = expected.iter().position(|expected| *expected == found).expect("key and chain of one generation");
                seen[which] += 1;
            }
            seen
        });
        while !reader.is_finished() {
            // Whole generations, before and while they are live, and the links to them.
            for generation in [TWO, ONE] {
                let _ = node.root.switch(&site(), generation).expect("switched");
                fs::write(node.path(&format!("archive/{SITE}/{generation}/chain.pem")), "altered").expect("written");
                node.stage(generation);
            }
        }
        let seen = reader.join().expect("a reader");
        assert!(seen.iter().all(|times| *times > 0), "it never saw both: {seen:?}");
    });
}
