//! What working on an operation takes, beside what is known of it.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    engine::Stop,
    fleet::{Sink, inventory::Member},
    migration::catalog::CatalogResult,
    postgres::executor::Author,
    source::Directory,
};

/// The migration directories of an operation, each with what it held when it was read.
pub(in crate::fleet) type Catalogs = Vec<(Arc<Directory>, CatalogResult)>;

/// What working on an operation takes.
#[derive(Clone)]
pub(in crate::fleet) struct Work {
    /// Who does it: who asked for it, or who had it tried again.
    pub(in crate::fleet) author: Author,
    /// Stops the attempt that is under way, and nothing else.
    pub(in crate::fleet) stop: Stop,
    /// Takes what happens.
    pub(in crate::fleet) sink: Arc<Sink>,
    /// The databases, as they were when the attempt began; none while the operation is at rest.
    pub(in crate::fleet) members: Arc<BTreeMap<String, Arc<Member>>>,
    /// What their directories held when they were read; empty before.
    pub(in crate::fleet) catalogs: Arc<Catalogs>,
    /// The attempt goes on with that of another daemon, which has ended.
    pub(in crate::fleet) takes_over: bool,
}

impl Work {
    /// What a database's directory held; `None` where it was not read yet.
    pub(in crate::fleet) fn catalog(&self, member: &Member) -> Option<&CatalogResult> {
        catalog_of(&self.catalogs, member)
    }

    /// Takes what directories hold now; what others held, that were read meanwhile, stays.
    pub(in crate::fleet) fn take_catalogs(&mut self, mut catalogs: Catalogs) {
        let is_new = |(directory, _): &&(Arc<Directory>, _)| {
            !catalogs.iter().any(|(other, _)| Arc::ptr_eq(other, directory))
        };
        let others: Vec<_> = self.catalogs.iter().filter(is_new).cloned().collect();
        catalogs.extend(others);
        self.catalogs = Arc::new(catalogs);
    }
}

/// What a database's directory held, of those that were read.
pub(in crate::fleet) fn catalog_of<'a>(catalogs: &'a Catalogs, member: &Member) -> Option<&'a CatalogResult> {
    let of_member = |(directory, _): &&(Arc<Directory>, _)| Arc::ptr_eq(directory, &member.directory);
    catalogs.iter().find(of_member).map(|(_, catalog)| catalog)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{fleet::operation::watcher::tests::with_id, migration::Failure, source::Options};

    #[test]
    fn what_was_read_of_other_directories_stays() {
        let mut work = with_id(Uuid::from_u128(7)).to_work_with();
        let directory = |path: &str| Arc::new(Directory::new(path.into(), Options::default()));
        let (one, two) = (directory("one"), directory("two"));
        let held = |work: &Work| {
            let text = |(directory, catalog): &(Arc<Directory>, CatalogResult)| {
                format!("{} {}", directory.path().display(), catalog.is_ok())
            };
            work.catalogs.iter().map(text).collect::<Vec<_>>().join(", ")
        };
        let failure = || Err(Failure::new(crate::migration::Code::Internal, "no"));
        work.take_catalogs(vec![(one.clone(), Ok(Arc::default()))]);
        work.take_catalogs(Vec::new());
        assert_eq!(held(&work), "one true");
        work.take_catalogs(vec![(two, Ok(Arc::default()))]);
        work.take_catalogs(vec![(one, failure())]);
        assert_eq!(held(&work), "one false, two true");
    }
}
