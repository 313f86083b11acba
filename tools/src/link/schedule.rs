//! What changes when.

use std::time::Duration;

use anabranch_sim::LinkChange;

use super::Way;
use super::settings::Settings;
use super::values::Time;
use crate::usage::Usage;

/// Words that are no setting.
const WORDS: [(&str, LinkChange); 2] = [("down", LinkChange::Down), ("up", LinkChange::Up)];

/// A change of one direction or both.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Step {
    /// Since the start.
    pub(super) at: Duration,
    /// Which direction; none is both.
    pub(super) way: Option<Way>,
    pub(super) changes: Vec<LinkChange>,
    /// As it was given.
    pub(super) text: String,
}

impl Step {
    /// Reads `TIME` and `[a-to-b:|b-to-a:]down|up|KEY=VALUE,…`.
    ///
    /// # Errors
    /// Names what is wrong.
    pub(super) fn parse(time: &str, text: &str) -> anyhow::Result<Self> {
        let context = |error: anyhow::Error| Usage::error(format!("--at {time} {text}: {error}"));
        let Time(at) = time.parse().map_err(|error| context(anyhow::Error::new(error)))?;
        let (way, list) = match text.split_once(':') {
            Some(("a-to-b", list)) => (Some(Way::AToB), list),
            Some(("b-to-a", list)) => (Some(Way::BToA), list),
            _ => (None, text),
        };
        let changes = changes(list).map_err(context)?;
        Ok(Self { at, way, changes, text: text.to_owned() })
    }

    /// Whether it concerns this direction.
    pub(super) fn concerns(&self, way: Way) -> bool {
        self.way.is_none_or(|of| of == way)
    }
}

fn changes(list: &str) -> anyhow::Result<Vec<LinkChange>> {
    let (words, pairs): (Vec<&str>, Vec<&str>) =
        list.split(',').map(str::trim).partition(|item| WORDS.iter().any(|(word, _)| word == item));
    let mut changes: Vec<LinkChange> = words
        .iter()
        .flat_map(|item| WORDS.iter().filter(move |(word, _)| word == item))
        .map(|&(_, change)| change)
        .collect();
    if !pairs.is_empty() {
        changes.extend(Settings::from_list(&pairs.join(","))?.changes()?);
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_names_its_time_its_direction_and_its_changes() {
        let step = Step::parse("2s", "down").unwrap();
        assert_eq!((step.at, step.way, &step.changes[..]), (Duration::from_secs(2), None, &[LinkChange::Down][..]));
        let step = Step::parse("500ms", "b-to-a:up,rate=5mbit,delay=80ms").unwrap();
        let expected =
            [LinkChange::Up, LinkChange::Rate(Some(5_000_000)), LinkChange::Delay(Duration::from_millis(80))];
        assert_eq!((step.way, &step.changes[..]), (Some(Way::BToA), &expected[..]));
        assert!(step.concerns(Way::BToA) && !step.concerns(Way::AToB));
        let step = Step::parse("1s", "loss=ge:1%:10%").unwrap();
        assert!(matches!(step.changes[..], [LinkChange::Loss(_)]));
    }

    #[test]
    fn what_cannot_be_said_is_refused_by_name() {
        for (time, text, part) in [
            ("2", "down", "--at 2 down: give a time"),
            ("2s", "sideways", "'sideways' is no KEY=VALUE"),
            ("2s", "rate=5", "rate: '5': give a rate"),
            ("2s", "c-to-d:down", "'c-to-d:down' is no KEY=VALUE"),
            ("2s", "speed=5mbit", "unknown field `speed`"),
            ("2s", "aqm=red", "aqm cannot change on the way"),
            ("2s", "queue=1bdp", "give it in packets or bytes"),
            ("2s", "", "'' is no KEY=VALUE"),
        ] {
            let error = Step::parse(time, text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
