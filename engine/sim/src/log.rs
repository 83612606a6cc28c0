//! What the components complain of: a simulation in which one logs an error or panics has failed.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{EnvFilter, Layer};

/// Errors logged on this thread since the beginning.
#[derive(Clone, Debug, Default)]
pub(crate) struct Complaints(Arc<Mutex<Vec<String>>>);

impl Complaints {
    /// Listens as long as the guard lives. What `SHIPWAY_LOG` asks for is printed besides.
    pub(crate) fn listen(&self) -> DefaultGuard {
        let filter = EnvFilter::try_from_env("SHIPWAY_LOG").ok();
        let printed = filter.map(|filter| {
            tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false).with_filter(filter)
        });
        let kept = self.clone().with_filter(tracing_subscriber::filter::LevelFilter::ERROR);
        tracing::subscriber::set_default(tracing_subscriber::registry().with(kept).with(printed))
    }

    /// What was logged; forgets it.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<S: Subscriber> Layer<S> for Complaints {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() == Level::ERROR {
            let mut line = Line(event.metadata().target().to_owned());
            event.record(&mut line);
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.0);
        }
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").expect("a String takes any text");
    }
}
