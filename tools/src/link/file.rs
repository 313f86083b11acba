//! The same options in a TOML file.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::run::BusyWait;
use super::schedule::Step;
use super::settings::Settings;
use crate::options::LogLevel;
use crate::usage::Usage;

/// What a file says.
#[derive(Debug, Default)]
pub(super) struct File {
    pub(super) both: Settings,
    pub(super) a_to_b: Settings,
    pub(super) b_to_a: Settings,
    pub(super) steps: Vec<Step>,
    pub(super) trace_up: Option<PathBuf>,
    pub(super) trace_down: Option<PathBuf>,
    pub(super) seed: Option<u64>,
    pub(super) duration: Option<Duration>,
    pub(super) busy_wait: Option<BusyWait>,
    pub(super) log: Option<LogLevel>,
    pub(super) json: Option<bool>,
}

/// As it stands there; what is none of these keys is a setting of both directions.
#[derive(Deserialize, Debug, Default)]
#[serde(rename_all = "kebab-case", default)]
struct Text {
    a_to_b: Settings,
    b_to_a: Settings,
    at: Vec<(String, String)>,
    trace_up: Option<PathBuf>,
    trace_down: Option<PathBuf>,
    seed: Option<u64>,
    duration: Option<String>,
    busy_wait: Option<String>,
    log: Option<LogLevel>,
    json: Option<bool>,
    #[serde(flatten)]
    both: toml::Table,
}

/// Reads a file.
///
/// # Errors
/// It cannot be read or has something in it that does not belong there.
pub(super) fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path)
        .map_err(|error| Usage::error(format!("cannot read --config {}: {error}", path.display())))?;
    parse(&text).map_err(|error| Usage::error(format!("--config {}: {error:#}", path.display())))
}

fn parse(text: &str) -> anyhow::Result<File> {
    let text: Text = toml::from_str(text)?;
    let steps = text.at.iter().map(|(time, change)| Step::parse(time, change)).collect::<anyhow::Result<_>>()?;
    let duration = text.duration.as_deref().map(humantime::parse_duration).transpose();
    let busy_wait = text.busy_wait.as_deref().map(str::parse).transpose();
    Ok(File {
        both: text.both.try_into()?,
        a_to_b: text.a_to_b,
        b_to_a: text.b_to_a,
        steps,
        trace_up: text.trace_up,
        trace_down: text.trace_down,
        seed: text.seed,
        duration: duration.map_err(|error| Usage::error(format!("duration: {error}")))?,
        busy_wait: busy_wait.map_err(|error| Usage::error(format!("busy-wait: {error}")))?,
        log: text.log,
        json: text.json,
    })
}

#[cfg(test)]
mod tests {
    use super::super::values::Rate;
    use super::*;

    #[test]
    fn a_file_has_the_words_of_the_command_line() {
        let file = parse(
            r#"
            rate = "50mbit"
            ecn = true
            seed = 7
            duration = "1m30s"
            busy-wait = "off"
            at = [["2s", "down"], ["3s", "up"]]
            [a-to-b]
            rate = "5mbit"
            loss = "ge:1%:10%"
            "#,
        )
        .unwrap();
        assert_eq!((file.both.rate, file.a_to_b.rate), (Some(Rate(Some(50_000_000))), Some(Rate(Some(5_000_000)))));
        assert_eq!((file.both.ecn, file.seed, file.duration), (Some(true), Some(7), Some(Duration::from_secs(90))));
        assert_eq!(file.steps.len(), 2);
    }

    #[test]
    fn what_does_not_belong_there_is_refused_by_name() {
        for (text, part) in [
            ("speed = 5", "speed"),
            ("rate = \"5\"", "'5': give a rate"),
            ("[a-to-b]\nspeed = 5", "speed"),
            ("at = [[\"2s\", \"sideways\"]]", "--at 2s sideways"),
            ("duration = \"long\"", "duration"),
            ("busy-wait = \"1s\"", "busy-wait"),
            ("seed = -1", "seed"),
        ] {
            let error = format!("{:#}", parse(text).unwrap_err());
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
