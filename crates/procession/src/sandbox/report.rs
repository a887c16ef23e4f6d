//! [`SandboxReport`]: which layers of a sandbox the workers have.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::printable::printable;

/// The layers of the [`Sandbox`](crate::Sandbox) that the workers of a pool have.
///
/// ```
/// use procession::ProcessPool;
///
/// fn print(pool: &ProcessPool) {
///     let Some(report) = pool.sandbox_report() else { return println!("no worker is ready yet") };
///     for layer in report.layers() {
///         println!("{}: {}", layer.layer, layer.missing.as_deref().unwrap_or("in force"));
///     }
/// }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxReport {
    pub(super) layers: Vec<Layer>,
}

/// A layer of a [`Sandbox`](crate::Sandbox): `namespaces`, `limits`, `capabilities`, `landlock` or `seccomp`; and, by
/// control groups, `cgroup` (all processes of a worker end with it), `cgroup.threads` (a bound of their number) and
/// `cgroup.memory` ([`Sandbox::total_memory`](crate::Sandbox::total_memory)).
///
/// ```
/// use procession::{Layer, SandboxReport};
///
/// fn missing(report: &SandboxReport) -> Vec<&Layer> {
///     report.layers().iter().filter(|layer| layer.missing.is_some()).collect()
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Layer {
    /// Its name.
    pub layer: String,
    /// Why the workers do not have it. `None`: they have it.
    pub missing: Option<String>,
    /// Workers go on without it: see [`Sandbox::require_namespaces`](crate::Sandbox::require_namespaces). Control
    /// groups are optional, too, but for `cgroup.memory`.
    pub is_optional: bool,
}

impl SandboxReport {
    /// All layers. None if the pool has no sandbox.
    /// See the example of [`ProcessPool::sandbox_report`](crate::ProcessPool::sandbox_report).
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// This report, with these layers in front of its own.
    pub(crate) fn behind(&self, layers: &[Layer]) -> Self {
        Self { layers: [layers, &self.layers].concat() }
    }

    /// Whether there is a sandbox and no layer is missing, apart from an optional one.
    /// See the example of [`ProcessPool::sandbox_report`](crate::ProcessPool::sandbox_report).
    pub fn is_complete(&self) -> bool {
        let is_there = |layer: &Layer| layer.missing.is_none() || layer.is_optional;
        !self.layers.is_empty() && self.layers.iter().all(is_there)
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return f.write_str("no sandbox");
        }
        for (n, Layer { layer, missing, .. }) in self.layers.iter().enumerate() {
            let separator = if n == 0 { "" } else { ", " };
            let layer = printable(layer);
            match missing {
                None => write!(f, "{separator}{layer}")?,
                Some(why) => write!(f, "{separator}without {layer} ({})", printable(why))?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_names_what_is_there_and_what_is_missing() {
        assert_eq!(SandboxReport::default().to_string(), "no sandbox");
        let layer = |layer: &str, missing: Option<&str>| Layer {
            layer: layer.to_owned(),
            missing: missing.map(str::to_owned),
            is_optional: layer == "namespaces",
        };
        let mut report = SandboxReport { layers: vec![layer("seccomp", None)] };
        assert!(report.is_complete());
        report.layers.push(layer("landlock", Some("too\told\u{1b}")));
        assert_eq!(report.to_string(), "seccomp, without landlock (too\told\\u{1b})");
        assert!(!report.is_complete());
        report.layers[1].layer = "namespaces".to_owned();
        report.layers[1].is_optional = true;
        assert!(report.is_complete());
    }
}
