//! What is looked at, so that links to what is missing cost what changes.

use crate::id::{EntryId, ReplicaId, Timestamp};
use crate::replica::Replica;

const END: usize = usize::MAX;
const MANY_LINKS: usize = 300;
const MISSING: EntryId = EntryId::from_bytes([7; 16]);

/// A replica with many links to one entry that is not there, in a folder each if `is_apart`.
fn many_links(is_apart: bool) -> (Replica, Vec<EntryId>) {
    let mut desk = Replica::new(ReplicaId::new(1).unwrap());
    let links = (0..MANY_LINKS).map(|_| {
        let outer = match is_apart {
            true => desk.create_item(EntryId::ROOT, END).unwrap(),
            false => EntryId::ROOT,
        };
        let link = desk.create_link_unchecked(MISSING, outer, END).unwrap();
        if is_apart { outer } else { link }
    });
    let links = links.collect();
    (desk, links)
}

/// Runs some edits, and says how many links were looked at, each time.
fn looked(desk: &mut Replica, edits: impl FnOnce(&mut Replica)) -> usize {
    let before = desk.display.looked;
    edits(desk);
    desk.assert_invariants();
    desk.display.looked - before
}

#[test]
fn links_to_one_missing_target_are_looked_at_when_they_move() {
    for is_apart in [false, true] {
        let (mut desk, links) = many_links(is_apart);
        let trashed = looked(&mut desk, |desk| {
            let trash = |link: &EntryId| desk.trash(*link, Timestamp::from_millis(7)).unwrap();
            links.iter().for_each(trash);
        });
        assert!(trashed <= 2 * MANY_LINKS, "{trashed}");
        assert!(!desk.is_shown(MISSING));
        let back = looked(&mut desk, |desk| desk.move_to(links[0], EntryId::ROOT, 0).unwrap());
        assert!(back <= 2, "{back}");
        assert!(desk.is_shown(MISSING));
        let purged = looked(&mut desk, |desk| {
            desk.transact(|desk| links[1..].iter().try_for_each(|link| desk.purge(*link))).unwrap();
        });
        assert!(purged <= 2 * MANY_LINKS, "{purged}");
        let taken_back = looked(&mut desk, |desk| {
            let failed = desk.transact(|desk| {
                desk.purge(links[0])?;
                desk.create_item(MISSING, 0).map(|_| ())?;
                Err::<(), _>(crate::EditError::NotFound(MISSING))
            });
            failed.unwrap_err();
        });
        assert!(taken_back <= 9, "{taken_back}");
    }
}

#[test]
fn a_folder_costs_what_is_inside_it_or_all_links_whichever_is_less() {
    let (mut desk, links) = many_links(false);
    let folder = desk.create_item(EntryId::ROOT, END).unwrap();
    let [inner, other] = [0; 2].map(|_| desk.create_item(folder, END).unwrap());
    desk.create_item(other, END).unwrap();
    desk.move_to(links[0], inner, END).unwrap();
    let small = looked(&mut desk, |desk| desk.trash(folder, Timestamp::from_millis(7)).unwrap());
    assert_eq!(small, 1);
    let failed = looked(&mut desk, |desk| {
        let failed = desk.transact(|desk| {
            desk.move_to(folder, EntryId::ROOT, END)?;
            desk.move_to(inner, EntryId::ROOT, END)?;
            Err::<(), _>(crate::EditError::NotFound(MISSING))
        });
        failed.unwrap_err();
    });
    assert!(failed <= 9, "{failed}");
    for _ in 0..2 * MANY_LINKS {
        desk.create_item(folder, END).unwrap();
    }
    let large = looked(&mut desk, |desk| desk.move_to(folder, EntryId::ROOT, END).unwrap());
    assert!(large <= MANY_LINKS + 1, "{large}");
}
