//! One file of a job.

use serde::{Deserialize, Serialize};

/// What a body must be to be saved. It must also be complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BodyCheck {
    /// Anything. It is written to its file while it arrives.
    Any,
    /// One whole GIF. It is held in memory until it has been checked.
    Gif,
}

/// One file of a job: where it comes from, where it goes, and what it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileItem {
    /// Its name in reports, logs and JSON, which no other item of the job has: the code of a flag, or
    /// the name of the file.
    pub code: String,
    /// The URL, http or https.
    pub url: String,
    /// The name of the file, relative to the destination.
    pub file: String,
    /// What the body must be.
    pub check: BodyCheck,
}
