//! Plans over the fleet: what would be done on each database, in which waves, and the digest by
//! which a run is held to it.

use std::{collections::BTreeMap, sync::Arc};

use uuid::Uuid;

use crate::{
    engine::{self, Verb},
    fleet::{
        Fleet, Request,
        inventory::Member,
        run,
        selector::Need,
        strategy::{self, Strategy, Wave},
    },
    migration::{Basis, Code, Failure, PlanDigest, digest::Planned, event::DatabaseReport},
    postgres::executor::Author,
};

/// How many details a refusal lists.
const MOST_DETAILS: usize = 50;

/// What a verb would do now.
#[derive(Debug)]
pub struct FleetPlan {
    /// By database, in the order of their names.
    pub databases: Vec<DatabaseReport>,
    /// The waves, in their order.
    pub waves: Vec<Wave>,
    /// Its digest; `None` where a database has no plan that would not be refused.
    pub digest: Option<PlanDigest>,
    pub(super) bases: BTreeMap<String, Basis>,
}

/// The plan that a request is held to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    digest: PlanDigest,
    /// What the plan of each database was made over, once that is known to be what the digest says.
    bases: BTreeMap<String, Basis>,
}

impl Held {
    /// Held to the plan of this digest. Nothing runs before [`Fleet::hold`] has made sure of it.
    pub fn to(digest: PlanDigest) -> Self {
        Self { digest, bases: BTreeMap::new() }
    }

    /// The plan's digest.
    pub fn digest(&self) -> &PlanDigest {
        &self.digest
    }

    /// What each database's run is held to. Refused where these are not the plan's databases.
    pub(super) fn bases(&self, members: &[Arc<Member>]) -> Result<&BTreeMap<String, Basis>, Failure> {
        if self.bases.keys().map(String::as_str).eq(members.iter().map(|member| member.name())) {
            return Ok(&self.bases);
        }
        let message = "The plan has moved: the databases that are meant are not those of the plan";
        Err(Failure::new(Code::PlanMoved, message))
    }
}

impl Fleet {
    /// Shows what a verb would do now.
    pub async fn plan(&self, request: &Request, verb: &Verb) -> Result<FleetPlan, Failure> {
        let members = self.inventory().select(&request.selection, Need::Named, &request.permit)?;
        let waves = waves(&request.strategy, &members)?;
        let author = self.author(request.id.unwrap_or_else(Uuid::now_v7), request);
        let members = members.into_iter().map(|member| (member, verb.clone())).collect();
        Ok(self.plan_each(members, &author, (verb, &request.strategy, waves)).await)
    }

    /// Plans what would be done on each of these databases, as one whole: what is done in all, how, and in
    /// which waves.
    pub(super) async fn plan_each(
        &self,
        members: Vec<(Arc<Member>, Verb)>,
        author: &Author,
        (verb, strategy, waves): (&Verb, &Strategy, Vec<Wave>),
    ) -> FleetPlan {
        let plan = |(member, verb): (Arc<Member>, Verb)| async move {
            match member.catalog().await {
                Ok(catalog) => {
                    let _place = member.reading_place().await;
                    engine::plan(&self.run(&member, catalog, author.clone()), &verb).await
                }
                Err(failure) => (run::refused(member.name(), failure), None),
            }
        };
        let planned = run::bounded(self.max_parallel(), members, plan).await;
        let mut bases = BTreeMap::new();
        let mut databases = Vec::with_capacity(planned.len());
        for (report, basis) in planned {
            bases.extend(basis.map(|basis| (report.database.clone(), basis)));
            databases.push(report);
        }
        let is_whole = bases.len() == databases.len();
        let digest = is_whole.then(|| digest(verb, strategy, &waves, &bases));
        FleetPlan { databases, waves, digest, bases }
    }

    /// Makes sure that a request which is held to a plan would do now what the plan says, and notes
    /// what each database's run is held to. An operation that was started before is not planned
    /// again: its outcome is told.
    pub async fn hold(&self, request: &mut Request, verb: &Verb) -> Result<(), Failure> {
        let is_known = request.id.is_some_and(|id| self.operations().get(id).is_some());
        let Some(held) = request.plan.clone().filter(|_| !is_known) else { return Ok(()) };
        let now = self.plan(request, verb).await?;
        let Some(digest) = &now.digest else {
            let refused = now
                .databases
                .iter()
                .filter_map(|report| Some(format!("{}: {}", report.database, report.result.as_ref().err()?)));
            let message = "The plan has moved: there is no plan for some databases now";
            return Err(Failure::new(Code::PlanMoved, message).details(refused.take(MOST_DETAILS).collect()));
        };
        held.digest.hold(digest)?;
        request.plan = Some(Held { bases: now.bases, ..held });
        Ok(())
    }
}

/// The waves of a strategy over these databases.
pub(super) fn waves(strategy: &Strategy, members: &[Arc<Member>]) -> Result<Vec<Wave>, Failure> {
    let target = |member: &Arc<Member>| strategy::Target {
        name: member.name().to_owned(),
        labels: member.labels.clone(),
    };
    strategy::waves(strategy, &members.iter().map(target).collect::<Vec<_>>())
}

fn digest(verb: &Verb, strategy: &Strategy, waves: &[Wave], bases: &BTreeMap<String, Basis>) -> PlanDigest {
    let waves: Vec<_> = waves.iter().map(|wave| (wave.name.as_str(), wave.databases.as_slice())).collect();
    let databases: Vec<_> = bases.iter().map(|(name, basis)| (name.as_str(), basis)).collect();
    PlanDigest::of(&Planned {
        verb: format!("{} {}", verb.name(), verb.repair()).trim_end(),
        strategy: &strategy.to_string(),
        waves: &waves,
        databases: &databases,
    })
}
