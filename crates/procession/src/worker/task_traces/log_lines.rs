//! The records of the crate `log`, sent as events.

use std::sync::Arc;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::forwarder::{Forwarder, Parent, SiteKey, cut};
use super::values::ValueReader;
use crate::transport::{FieldValue, TraceSite};

/// Installs it as the logger of this process, unless the program has one of its own.
pub(super) fn install(forwarder: Arc<Forwarder>) {
    let levels = [Level::Trace, Level::Debug, Level::Info, Level::Warn, Level::Error];
    let most = levels.into_iter().find(|level| forwarder.takes(level_of(*level)));
    if log::set_boxed_logger(Box::new(LogForwarder(forwarder))).is_ok() {
        log::set_max_level(most.map_or(LevelFilter::Off, |level| level.to_level_filter()));
    }
}

struct LogForwarder(Arc<Forwarder>);

impl Log for LogForwarder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.takes(level_of(metadata.level()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let message = ValueReader::new().text(*record.args());
        let (level, target) = (record.level() as u8, record.target());
        let place = record.file().map(str::to_owned).zip(record.line());
        let key = SiteKey::OfLog(level, target.to_owned(), place);
        let describe = || {
            let mut site = TraceSite {
                is_span: false,
                level,
                name: "log event".into(),
                target: target.to_owned().into(),
                module: record.module_path().map(|path| path.to_owned().into()),
                file: record.file().map(|file| file.to_owned().into()),
                line: record.line(),
                fields: vec!["message".into()],
            };
            cut(&mut site);
            site
        };
        let values = vec![(0, FieldValue::Formatted(message))];
        self.0.send_event(Parent::Entered, key, &describe, values);
    }

    fn flush(&self) {}
}

fn level_of(level: Level) -> tracing::Level {
    match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
        Level::Trace => tracing::Level::TRACE,
    }
}
