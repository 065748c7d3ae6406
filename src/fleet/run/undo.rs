//! Taking back exactly what an operation applied, database by database, the newest first.

use futures_util::StreamExt as _;

use crate::{
    engine::Verb,
    fleet::run::{Attempt, database},
    migration::{
        Version,
        plan::{Extent, RollbackRequest, Source},
    },
};

impl Attempt {
    /// Rolls back what the operation applied, beginning with the database that was done last; one
    /// that fails does not stop the others.
    pub(super) async fn undo(&self) {
        let mut touched: Vec<_> = self.operation.look(|record| {
            let touched = record.databases.iter().map(|(name, it)| (it.ended, name.clone(), it.touched()));
            touched.filter(|(.., versions)| !versions.is_empty()).collect()
        });
        touched.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        let undo = |(_, name, versions): (_, String, Vec<Version>)| async move {
            // The journal kept the down scripts of what was applied: the files may have changed.
            let extent = Extent::Exactly { versions, operation: self.operation.id() };
            let request = RollbackRequest { extent, no_auto_recover: false, source: Some(Source::Journal) };
            database::take_back(&self.fleet, self.operation.clone(), &name, Verb::Rollback(request)).await
        };
        let reports = futures_util::stream::iter(touched.into_iter().map(undo));
        reports.buffered(self.parallel()).for_each(|_| std::future::ready(())).await;
    }
}
