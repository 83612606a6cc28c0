//! Where a walk stands, kept on its stack and written out only when an error needs it.

use std::fmt;

/// A place in a document: the way back to its root.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Root,
    Field(&'a str),
    Item(usize),
}

impl<'a> Path<'a> {
    pub(super) const ROOT: Path<'static> = Path { parent: None, step: Step::Root };

    /// A field of the object at this place.
    pub(super) fn field(&'a self, name: &'a str) -> Path<'a> {
        Path { parent: Some(self), step: Step::Field(name) }
    }

    /// An item of the list at this place, counted from 0.
    pub(super) fn item(&'a self, at: usize) -> Path<'a> {
        Path { parent: Some(self), step: Step::Item(at) }
    }
}

impl fmt::Display for Path<'_> {
    /// `spec.containers[0].name`; names that a dot would tear apart stand in brackets, and the root is `patch`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(parent) = self.parent else {
            return f.write_str("patch");
        };
        let first = matches!(parent.step, Step::Root);
        if !first {
            write!(f, "{parent}")?;
        }
        match self.step {
            Step::Root => Ok(()),
            Step::Item(at) => write!(f, "[{at}]"),
            Step::Field(name) if name.contains(['.', '/']) => write!(f, "[{name}]"),
            Step::Field(name) => write!(f, "{}{name}", if first { "" } else { "." }),
        }
    }
}
