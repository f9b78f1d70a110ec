//! What a campaign found.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::{history::Events, oracle::Verdict};

/// Violations printed; all are in the JSON.
const SHOWN_MAX: usize = 10;

/// The result of a campaign.
#[derive(Serialize)]
pub(crate) struct Report<'a> {
    /// Name of the fault.
    pub(crate) fault: &'a str,
    /// Seed of every stream of chance.
    pub(crate) seed: u64,
    /// How often the node was broken.
    pub(crate) cycles: u32,
    /// Why the run proves nothing, if so.
    pub(crate) void: Option<String>,
    /// The oracle's words.
    pub(crate) verdict: Verdict,
}

impl Report<'_> {
    /// Prints the result, keeps the history of a failed run, and says how the program ends.
    pub(crate) fn conclude(mut self, events: &Events, folder: &Path) -> Result<ExitCode> {
        if self.void.is_none() && self.verdict.is_void() {
            self.void = Some("too little was compared".to_owned());
        }
        let v = &self.verdict;
        println!(
            "{}: {} cycles, {} updates acknowledged, {} unknown, {} reads, {} conflicts, {} epochs, {} queued, {} comparisons, {} violations",
            self.fault,
            self.cycles,
            v.acknowledged,
            v.unknown,
            v.reads,
            v.conflicts,
            v.epochs,
            v.queued,
            v.compared,
            v.violations.len()
        );
        for violation in v.violations.iter().take(SHOWN_MAX) {
            println!("  {violation}");
        }
        if let Some(why) = &self.void {
            println!("void: {why}");
        }
        fs::write(
            folder.join("report.json"),
            serde_json::to_vec_pretty(&self)?,
        )
        .context("report.json")?;
        let passed = self.void.is_none() && self.verdict.violations.is_empty();
        if !passed {
            fs::write(folder.join("history.json"), serde_json::to_vec(events)?)?;
            println!("history kept in {}", folder.display());
        }
        Ok(if passed {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
