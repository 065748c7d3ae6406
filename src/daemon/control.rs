//! From the configuration to the control database.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    control::{Control, Settings},
    postgres::Target,
    runtime::Tasks,
};

/// The control database, which is opened as soon as that can be; `None` where there is none.
pub(super) fn start(
    config: &Config,
    instance: &str,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Arc<Control>>> {
    let Some(config) = &config.control else { return Ok(None) };
    let control = Control::new(Settings {
        target: Target::parse(&config.url)?,
        schema: config.settings.schema.clone(),
        instance: instance.to_owned(),
        lease: config.settings.lease,
    });
    let (opening, stop) = (control.clone(), stop.clone());
    tasks.spawn_vital("control-open", async move {
        tokio::select! {
            () = opening.open() => {}
            () = stop.cancelled() => {}
        }
    });
    Ok(Some(control))
}
