//! Taking back exactly what an operation applied, database by database, the newest first.

use futures_util::StreamExt as _;

use crate::{
    engine::Verb,
    fleet::{
        operation::Record,
        run::{Attempt, database},
    },
    migration::{
        Version,
        event::{DatabaseOutcome, DatabaseReport},
        plan::{Extent, RollbackRequest},
    },
};

impl Attempt {
    /// Rolls back what the operation applied, beginning with the database that was done last; one
    /// that fails does not stop the others. Returns of how many it was not all rolled back.
    pub(super) async fn undo(&self) -> usize {
        let unknown = self.learn_all().await;
        let mut touched: Vec<_> = self.operation.look(|record| {
            let touched = record.databases.iter().map(|(name, it)| (it.ended, name.clone(), it.touched()));
            touched.filter(|(.., versions)| !versions.is_empty()).collect()
        });
        touched.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        let undo = |(_, name, versions): (_, String, Vec<Version>)| async move {
            // The journal kept the down scripts of what was applied, but for large ones: those are
            // read from the files, as the operation has found them.
            let extent = Extent::Exactly { versions, operation: self.operation.id() };
            let request = RollbackRequest { extent, ..RollbackRequest::default() };
            database::take_back(&self.fleet, self.operation.clone(), &name, Verb::Rollback(request)).await
        };
        let reports = futures_util::stream::iter(touched.into_iter().map(undo));
        let is_left = |report: &Option<DatabaseReport>| {
            let result = report.as_ref().map(|report| &report.result);
            !matches!(result, Some(Ok(DatabaseOutcome::RolledBack)))
        };
        let reports: Vec<_> = reports.buffered(self.parallel()).collect().await;
        unknown + reports.iter().filter(|report| is_left(report)).count()
    }

    /// Asks the journals of the databases of which nobody knows what was done there; returns of how many
    /// that is still so.
    async fn learn_all(&self) -> usize {
        let unknown = |record: &Record| -> Vec<String> {
            let unknown = record.databases.iter().filter(|(_, database)| database.is_unknown);
            unknown.map(|(name, _)| name.clone()).collect()
        };
        let names = self.operation.look(unknown);
        let ask = |name: String| async move { database::learn_of(&self.fleet, &self.operation, &name).await };
        let asked = futures_util::stream::iter(names.into_iter().map(ask)).buffered(self.parallel());
        asked.filter(|known| std::future::ready(!known)).count().await
    }
}
