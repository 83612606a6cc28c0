//! The last word to a client that ran a command: a `v1` Status, as clients of the fourth and fifth protocol read it.

use serde_json::{Value, json};

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With exit code 0, or the attachment came to its end.
    Success,
    /// With another exit code; 128 + n after signal n.
    Exited(i32),
    /// It could not be run; the text says why.
    Failed(String),
}

impl Outcome {
    /// The Status.
    pub fn status(&self) -> Value {
        match self {
            Self::Success | Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed(message) => json!({
                "metadata": {},
                "status": "Failure",
                "message": format!("Internal error occurred: {message}"),
                "reason": "InternalError",
                "details": {"causes": [{"message": message}]},
                "code": 500,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exit_code_is_a_cause() {
        let status = Outcome::Exited(3).status();
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert_eq!(Outcome::Exited(0).status(), Outcome::Success.status());
    }
}
