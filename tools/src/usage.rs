use std::fmt;

/// The command was used wrongly: the program ends with exit code 2 instead of 1.
#[derive(Debug)]
pub(crate) struct Usage(String);

impl Usage {
    /// `message` names the thing, the value and the cure.
    pub(crate) fn error(message: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self(message.into()))
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}
