//! The service that tells of alerts and takes note of them.

use std::{collections::BTreeSet, pin::Pin, sync::Arc};

use futures_util::{Stream, StreamExt as _};
use jiff::Timestamp;
use tokio::sync::broadcast::error::RecvError;
use tonic::{Request, Response, Status};

use crate::{
    access::Permit,
    alert::Alerts,
    auditlog::{Allowed, AuditLog},
    fleet::{
        Fleet,
        selector::{Need, Selection},
    },
    migration::{Acknowledgement, Alert, AlertState, Code, Failure},
    redact::plain,
    rpc::{
        access, auditlog, convert,
        proto::{self, alert_service_server::AlertService},
        status::of_failure,
    },
};

/// The service over the daemon's alerts.
pub struct AlertRpc {
    alerts: Alerts,
    fleet: Arc<Fleet>,
    audit_log: AuditLog,
}

/// The databases that a request is about, of those that its caller may see.
struct Chosen {
    /// `None`: all, and the daemon itself.
    names: Option<BTreeSet<String>>,
    fleet: Arc<Fleet>,
    permit: Permit,
}

impl AlertRpc {
    /// A service over alerts; the fleet knows what the names of databases mean.
    pub fn new(alerts: Alerts, fleet: Arc<Fleet>, audit_log: AuditLog) -> Self {
        Self { alerts, fleet, audit_log }
    }

    fn chosen(&self, databases: Vec<String>, permit: Permit) -> Result<Chosen, Status> {
        let names = if databases.is_empty() {
            None
        } else {
            let selection = Selection { databases, ..Selection::default() };
            let members = self.fleet.inventory().select(&selection, Need::Any, &permit);
            let members = members.map_err(|failure| of_failure(&failure))?;
            Some(members.iter().map(|member| member.name().to_owned()).collect())
        };
        Ok(Chosen { names, fleet: self.fleet.clone(), permit })
    }

    /// The whole id of the alert that is meant, of those that may be seen. Refuses one of a database on
    /// which the role is not granted.
    fn permitted(&self, id: String, permit: &Permit) -> Result<String, Failure> {
        if permit.is_everywhere() {
            return Ok(id);
        }
        let sight = self.fleet.sight(permit);
        let id = id.trim().to_ascii_lowercase();
        let is_meant = |alert: &Alert| {
            !id.is_empty() && alert.id.to_string().starts_with(&id) && sight.sees(&alert.database)
        };
        let (present, past): (Vec<_>, Vec<_>) =
            self.alerts.list().into_iter().filter(is_meant).partition(|alert| alert.resolved.is_none());
        match if present.is_empty() { past } else { present }.as_slice() {
            [alert] => {
                sight.require([&alert.database])?;
                Ok(alert.id.to_string())
            }
            [] => Err(Failure::new(Code::UnknownAlert, format!("There is no alert {id:?}"))),
            several => {
                let message = format!("{} alerts begin with {id:?}", several.len());
                let ids = several.iter().map(|alert| alert.id.to_string()).collect();
                Err(Failure::new(Code::BadRequest, message).details(ids))
            }
        }
    }
}

impl Chosen {
    /// Whether an alert is to be told. Databases may have come and gone since the last one was.
    fn includes(&self, alert: &Alert) -> bool {
        self.names.as_ref().is_none_or(|names| names.contains(&alert.database))
            && self.fleet.sight(&self.permit).sees(&alert.database)
    }
}

#[tonic::async_trait]
impl AlertService for AlertRpc {
    type WatchAlertsStream = Pin<Box<dyn Stream<Item = Result<proto::WatchAlertsResponse, Status>> + Send>>;

    async fn list_alerts(
        &self,
        request: Request<proto::ListAlertsRequest>,
    ) -> Result<Response<proto::ListAlertsResponse>, Status> {
        let permit = access::permit(&request)?;
        let proto::ListAlertsRequest { databases, resolved } = request.into_inner();
        self.fleet.what_is_kept_is_known().map_err(|failure| of_failure(&failure))?;
        let chosen = self.chosen(databases, permit)?;
        let mut alerts = self.alerts.list();
        alerts.retain(|alert| chosen.includes(alert) && (resolved || alert.resolved.is_none()));
        Ok(Response::new(proto::ListAlertsResponse { alerts: alerts.iter().map(message).collect() }))
    }

    async fn watch_alerts(
        &self,
        request: Request<proto::WatchAlertsRequest>,
    ) -> Result<Response<Self::WatchAlertsStream>, Status> {
        let permit = access::permit(&request)?;
        self.fleet.what_is_kept_is_known().map_err(|failure| of_failure(&failure))?;
        let chosen = self.chosen(request.into_inner().databases, permit)?;
        let (mut standing, receiver) = self.alerts.watch();
        standing.retain(|alert| alert.resolved.is_none());
        let changes = futures_util::stream::unfold(Some(receiver), |receiver| async move {
            let mut receiver = receiver?;
            match receiver.recv().await {
                Ok(alert) => Some((Ok(alert), Some(receiver))),
                Err(RecvError::Closed) => None,
                // Alerts do not wait for anybody.
                Err(RecvError::Lagged(_)) => {
                    Some((Err(Status::resource_exhausted("Too slow to watch: ask again")), None))
                }
            }
        });
        let alerts = futures_util::stream::iter(standing.into_iter().map(Ok)).chain(changes);
        let alerts = alerts.take_until(self.alerts.ending());
        let told = alerts.filter_map(move |alert| {
            let told = match alert {
                Ok(alert) => chosen
                    .includes(&alert)
                    .then(|| Ok(proto::WatchAlertsResponse { alert: Some(message(&alert)) })),
                Err(status) => Some(Err(status)),
            };
            std::future::ready(told)
        });
        Ok(Response::new(Box::pin(told)))
    }

    async fn acknowledge_alert(
        &self,
        request: Request<proto::AcknowledgeAlertRequest>,
    ) -> Result<Response<proto::AcknowledgeAlertResponse>, Status> {
        let permit = access::permit(&request)?;
        let message = request.into_inner();
        let call = self.audit_log.call(&permit, &auditlog::acknowledge(&message));
        let acknowledge = async {
            let id = self.permitted(message.id.clone(), &permit)?;
            let until = message.until.map(|until| {
                Timestamp::new(until.seconds, until.nanos).map_err(|_| {
                    Failure::new(Code::BadRequest, "The time of the acknowledgement's end is none")
                })
            });
            let acknowledgement = Acknowledgement {
                by: convert::requested_by(&permit, &message.requested_by),
                reason: plain(&message.reason, convert::LONGEST_REASON),
                until: until.transpose()?,
            };
            call.allow(&Allowed::default()).await?;
            self.alerts.acknowledge(&id, acknowledgement).await
        };
        let alert = acknowledge.await;
        call.answered(alert.as_ref().map(|_| ()));
        let alert = alert.map_err(|failure| of_failure(&failure))?;
        Ok(Response::new(proto::AcknowledgeAlertResponse { alert: Some(self::message(&alert)) }))
    }
}

/// Tells an alert.
fn message(alert: &Alert) -> proto::Alert {
    let state = match alert.state {
        AlertState::Pending => proto::AlertState::Pending,
        AlertState::Firing => proto::AlertState::Firing,
        AlertState::Acknowledged => proto::AlertState::Acknowledged,
        AlertState::Resolved => proto::AlertState::Resolved,
    };
    let note = alert.acknowledged.as_ref();
    proto::Alert {
        id: alert.id.to_string(),
        finding: Some(convert::finding(&alert.database, &alert.finding)),
        state: state.into(),
        started_at: Some(convert::timestamp(alert.started)),
        fired_at: alert.fired.map(convert::timestamp),
        resolved_at: alert.resolved.map(convert::timestamp),
        acknowledged_by: note.map(|note| note.by.clone()).unwrap_or_default(),
        acknowledged_reason: note.map(|note| note.reason.clone()).unwrap_or_default(),
        acknowledged_until: note.and_then(|note| note.until).map(convert::timestamp),
        flaps: alert.flaps,
    }
}
