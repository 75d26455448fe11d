//! Copies on disk: what a restart, an edit and the loss of a file make of them, and how they go.

use super::*;
use crate::sources::{Provenance, Role};

impl Server {
    /// A server with a copy that came at serial 6; its journal leads to serial 8.
    fn with_copy(name: &str) -> Self {
        let server = Server::new(name);
        server.copy().expect("there is no such zone");
        for (serial, www) in [(6, &[1][..]), (7, &[1, 3]), (8, &[1, 2])] {
            server.transfer(serial, www).expect("a copy takes everything");
        }
        server
    }

    fn copy(&self) -> Result<(), Refused> {
        wait(self.authority.copy(&origin(), Provenance { role: Role::Secondary, primaries: Vec::new() }))
    }

    fn transfer(&self, serial: u32, www: &[u8]) -> Result<u32, Refused> {
        let mut proposal = replace(&zone_text(serial, www), &self.authority, Door::Transfer);
        (proposal.text, proposal.numbering) = (None, Numbering::AsIs);
        self.propose(proposal)
    }

    fn drop_copy(&self) -> Result<(), Refused> {
        wait(self.authority.drop_copy(&origin(), Actor::new(Door::Catalog, "")))
    }

    fn reloaded(&self) -> Vec<&'static str> {
        self.authority.reload(&origin()).problems.iter().map(|problem| problem.rule).collect()
    }

    fn kind(&self) -> Option<Kind> {
        self.authority.info(&origin()).map(|info| info.kind)
    }
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(work)
}

#[test]
fn a_copy_whose_file_is_lost_or_edited_while_nobody_looks_is_what_it_was() {
    let mut server = Server::with_copy("copy-lost");
    for is_lost in [true, false] {
        if is_lost {
            fs::remove_file(server.file()).unwrap();
        } else {
            server.edit(&zone_text(99, &[66]));
        }
        assert_eq!(server.restart(), ["copy"]);
        assert_eq!((server.served(), server.kind()), (Some((8, vec![1, 2])), Some(Kind::Secondary)));
        assert!(server.problems().is_empty(), "it is put right already");
        assert_eq!(server.reloaded(), [""; 0]);
        assert_eq!(server.restart(), [""; 0], "the file is the server's again");
    }
    assert_eq!(server.transfer(9, &[3]), Ok(9), "nothing stands in the way of the next version");
}

#[test]
fn a_copys_file_that_cannot_be_written_is_tried_again() {
    let mut server = Server::with_copy("copy-unwritten");
    fs::remove_file(server.file()).unwrap();
    // Nothing can take its place.
    fs::create_dir_all(server.file().join("x")).unwrap();
    let is_tried_again = |loaded: &Loaded| loaded.again && loaded.problems.iter().any(|one| one.rule == "not-stored");
    let loaded = server.authority.reload(&origin());
    assert!(is_tried_again(&loaded), "{loaded:?}");
    assert!(server.restart().contains(&"not-stored".to_owned()));
    let loaded = server.authority.reload(&origin());
    assert!(is_tried_again(&loaded), "{loaded:?}");
    assert_eq!(server.served(), Some((8, vec![1, 2])));
    fs::remove_dir_all(server.file()).unwrap();
    let loaded = server.authority.reload(&origin());
    assert!(!loaded.again && server.file().is_file(), "{loaded:?}");
    assert_eq!(server.reloaded(), [""; 0]);
    assert_eq!((server.restart(), server.served()), (vec![], Some((8, vec![1, 2]))));
}

#[test]
fn what_others_wrote_to_a_copys_file_holds_no_version_up() {
    let mut server = Server::with_copy("copy-written");
    server.damage_journal();
    assert_eq!(server.restart(), ["journal"]);
    server.edit(&zone_text(99, &[66]));
    assert_eq!(server.transfer(9, &[3]), Ok(9));
    assert_eq!((server.restart(), server.served()), (vec![], Some((9, vec![3]))));
}

#[test]
fn an_expired_copy_comes_back_by_its_primary_alone() {
    let mut server = Server::with_copy("copy-expired");
    server.damage_journal();
    assert_eq!(server.restart(), ["journal"]);
    assert_eq!(server.served(), Some((6, vec![1])));
    server.authority.expire(&origin());
    for edit in [false, true] {
        if edit {
            server.edit(&zone_text(99, &[66]));
        }
        let _ = server.reloaded();
        assert_eq!(server.served(), None);
        assert!(server.authority.zones().map().slot(&origin()).is_some(), "questions get SERVFAIL");
    }
    assert_eq!(server.transfer(9, &[3]), Ok(9));
    assert_eq!(server.served(), Some((9, vec![3])));
    server.authority.expire(&origin());
    let _ = server.reloaded();
    assert_eq!(server.served(), None, "also when nothing is wrong with its files");
    assert_eq!(server.transfer(9, &[3]), Ok(9));
    assert_eq!(server.served(), Some((9, vec![3])), "the same version brings it back");
}

#[test]
fn a_copy_goes_with_its_files_and_never_becomes_a_zone_of_its_own() {
    let folder_of = |server: &Server| server.authority.folder().clone();
    // A version is served; or there is a file that nobody can read as a copy.
    for is_served in [true, false] {
        let mut server = Server::with_copy(&format!("copy-drop-{is_served}"));
        let folder = folder_of(&server);
        fs::write(folder.confirmed_file(&origin()), "").unwrap();
        if !is_served {
            server.edit(&zone_text(99, &[66]));
            fs::remove_file(folder.good_file(&origin())).unwrap();
            server.restart();
            assert_eq!((server.served(), server.kind()), (None, Some(Kind::Secondary)));
        }
        server.drop_copy().expect("it is a copy");
        assert_eq!((server.served(), server.kind()), (None, None));
        let source = folder.sources_dir().join("example.com");
        for left in [server.file(), folder.journal_file(&origin()), folder.confirmed_file(&origin()), source] {
            assert!(!left.exists(), "{}", left.display());
        }
        assert_eq!((server.restart(), server.served(), server.kind()), (vec![], None, None));
    }
}

/// As the guide says it: without a catalog that drops it, the operator does, while the server is stopped.
#[test]
fn the_operator_drops_a_copy_or_keeps_it_as_a_zone() {
    for is_kept in [true, false] {
        let mut server = Server::with_copy(&format!("copy-orphan-{is_kept}"));
        let source = server.authority.folder().sources_dir().join("example.com");
        fs::remove_file(source).unwrap();
        if !is_kept {
            fs::remove_file(server.file()).unwrap();
        }
        assert_eq!(server.restart(), [""; 0]);
        let expected = is_kept.then_some(((8, vec![1, 2]), Kind::Primary));
        assert_eq!(server.served().zip(server.kind()), expected);
        assert_eq!(server.authority.folder().deleted_file(&origin()).exists(), !is_kept);
    }
}

#[test]
fn a_file_of_the_operators_is_no_copy() {
    let server = Server::new("copy-own");
    server.edit(&zone_text(7, &[1]));
    assert!(matches!(server.copy(), Err(Refused::Rules(rules)) if rules[0].rule == "own-zone"), "before it is read");
    assert_eq!(server.reloaded(), [""; 0]);
    assert!(server.copy().is_err());
    assert_eq!((server.served(), server.kind()), (Some((7, vec![1])), Some(Kind::Primary)));
    assert!(server.drop_copy().is_err());
}
