//! Request bodies to documents: JSON with duplicate keys noticed, and Kubernetes' protobuf envelope.

mod json;
mod protobuf;
mod tags;
mod wire;

pub use json::decode_json;
pub use protobuf::decode_protobuf;
pub(crate) use tags::Tags;

/// The longest request body taken, as upstream bounds it.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// The deepest nesting taken. The deepest built-in kind needs about 20 levels; the JSON parser itself stops at 128.
pub const MAX_DEPTH: usize = 64;

/// How a request body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

impl Encoding {
    /// The encoding that a `Content-Type` names; a missing one means JSON.
    pub fn of_content_type(content_type: &str) -> Option<Self> {
        let bare = content_type.split(';').next().unwrap_or("").trim();
        Some(match bare {
            "" | "application/json" | "*/*" => Self::Json,
            "application/vnd.kubernetes.protobuf" => Self::Protobuf,
            "application/yaml" | "application/x-yaml" | "text/yaml" => Self::Yaml,
            other if other.ends_with("+json") => Self::Json,
            other if other.ends_with("+yaml") => Self::Yaml,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Encoding;

    #[test]
    fn content_types_name_their_encoding() {
        assert_eq!(Encoding::of_content_type("application/json; charset=utf-8"), Some(Encoding::Json));
        assert_eq!(Encoding::of_content_type("application/apply-patch+yaml"), Some(Encoding::Yaml));
        assert_eq!(Encoding::of_content_type("application/vnd.kubernetes.protobuf"), Some(Encoding::Protobuf));
        assert_eq!(Encoding::of_content_type("application/strategic-merge-patch+json"), Some(Encoding::Json));
        assert_eq!(Encoding::of_content_type("text/html"), None);
    }
}
