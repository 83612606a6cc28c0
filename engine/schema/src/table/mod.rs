//! Printing: the `meta.k8s.io/v1` `Table` that `kubectl get` shows, with the columns people know.

mod access;
mod batch;
mod custom;
mod human;
mod metrics;
mod network;
mod node;
mod pod;
mod simple;
mod storage;
mod workload;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

pub(crate) use access::{
    API_SERVICE, CREATED, FLOW_SCHEMA, MUTATING_POLICY, POLICY_BINDING, PRIORITY_CLASS, PRIORITY_LEVEL, QUOTA,
    ROLE_BINDING, RUNTIME_CLASS, SIGNING_REQUEST, VALIDATING_POLICY, WEBHOOKS,
};
pub(crate) use batch::{AUTOSCALER, AUTOSCALER_V1, CRON_JOB, DISRUPTION_BUDGET, JOB};
pub use human::human_duration;
pub(crate) use metrics::{NODE_METRICS, POD_METRICS};
pub(crate) use network::{
    ENDPOINT_SLICE, ENDPOINTS, INGRESS, INGRESS_CLASS, IP_ADDRESS, NETWORK_POLICY, SERVICE, SERVICE_CIDR,
};
pub(crate) use node::NODE;
pub(crate) use pod::POD;
pub(crate) use simple::{COMPONENT, CONFIG_MAP, EVENT, LEASE, NAMESPACE, NEW_EVENT, SECRET, SERVICE_ACCOUNT};
pub(crate) use storage::{
    CLAIM, CSI_DRIVER, CSI_NODE, CSI_STORAGE_CAPACITY, RESOURCE_CLAIM, RESOURCE_SLICE, STORAGE_CLASS, VOLUME,
    VOLUME_ATTACHMENT, VOLUME_ATTRIBUTES_CLASS,
};
pub(crate) use workload::{
    CONTROLLER_REVISION, DAEMON_SET, DEPLOYMENT, POD_TEMPLATE, REPLICA_SET, REPLICATION_CONTROLLER, STATEFUL_SET,
};

use crate::lookup;
use crate::resource::{Cell, Column, Resource, ShownCell, ShownColumn};

/// What stands where there is nothing to say.
const NONE: &str = "<none>";

/// One object to print.
#[derive(Clone, Copy, Debug)]
pub struct TableInput<'a> {
    /// The whole object.
    pub object: &'a Value,
}

/// What a row says about its object beside the cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Nothing.
    None,
    /// Its metadata: a `PartialObjectMetadata`.
    #[default]
    Metadata,
    /// All of it.
    Object,
}

impl IncludeObject {
    /// The value of the query parameter `includeObject`; empty means metadata.
    pub fn of_parameter(text: &str) -> Option<Self> {
        Some(match text {
            "None" => Self::None,
            "" | "Metadata" => Self::Metadata,
            "Object" => Self::Object,
            _ => return None,
        })
    }
}

/// The objects as a table. `metadata` is left empty for the list's own; watch events after the first go without column
/// definitions.
pub fn table(
    resource: &Resource,
    rows: &[TableInput<'_>],
    include: IncludeObject,
    with_columns: bool,
    now: Timestamp,
) -> Value {
    let columns = &resource.columns;
    let definitions: Vec<Value> = columns.iter().filter(|_| with_columns).map(definition).collect();
    let rows: Vec<Value> = rows.iter().map(|row| print(columns, row.object, include, now)).collect();
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": {},
        "columnDefinitions": definitions,
        "rows": rows,
    })
}

/// The columns that a row says, or what every kind has.
pub(crate) fn shown(columns: &[Column]) -> Vec<ShownColumn> {
    let columns = if columns.is_empty() { PLAIN } else { columns };
    columns.iter().map(Into::into).collect()
}

/// The column of names, which every custom resource begins with.
pub(crate) fn name_column() -> ShownColumn {
    (&NAME).into()
}

/// The columns of a kind without any of its own.
const PLAIN: &[Column] = &[NAME, AGE];

const NAME: Column = column("Name", Cell::Name);
const AGE: Column = column("Age", Cell::Age);

/// A column of text.
const fn column(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "string", priority: 0, cell }
}

/// A column of whole numbers.
const fn number(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "integer", priority: 0, cell }
}

/// A column that only `-o wide` shows.
const fn wide(name: &'static str, cell: Cell) -> Column {
    Column { name, kind: "string", priority: 1, cell }
}

fn definition(column: &ShownColumn) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn print(columns: &[ShownColumn], object: &Value, include: IncludeObject, now: Timestamp) -> Value {
    let mut row = Map::new();
    let cells: Vec<Value> = columns.iter().map(|column| shown_cell(column, object, now)).collect();
    row.insert("cells".to_owned(), cells.into());
    if let Some(condition) = ended(object) {
        row.insert("conditions".to_owned(), condition);
    }
    let shown = match include {
        IncludeObject::None => None,
        IncludeObject::Metadata => Some(json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": object.get("metadata"),
        })),
        IncludeObject::Object => Some(object.clone()),
    };
    if let Some(shown) = shown {
        row.insert("object".to_owned(), shown);
    }
    Value::Object(row)
}

fn shown_cell(column: &ShownColumn, object: &Value, now: Timestamp) -> Value {
    match &column.cell {
        ShownCell::Built(built) => cell(*built, object, now),
        ShownCell::Path(path) => custom::cell(&column.kind, path.find(object).first().copied(), now),
    }
}

fn cell(cell: Cell, object: &Value, now: Timestamp) -> Value {
    match cell {
        Cell::Name => lookup::text(object, "metadata.name").into(),
        Cell::Age => human::since(lookup::text(object, "metadata.creationTimestamp"), now).into(),
        Cell::Text(path, absent) => match lookup::at(object, path) {
            Some(Value::String(text)) if !text.is_empty() => text.as_str().into(),
            Some(Value::Bool(flag)) => flag.to_string().into(),
            Some(Value::Number(number)) => number.to_string().into(),
            _ => absent.into(),
        },
        Cell::Number(path) => lookup::integer(object, path).unwrap_or(0).into(),
        Cell::With(print) => print(object, now),
    }
}

/// A pod that has run to its end says so in its row.
fn ended(object: &Value) -> Option<Value> {
    if lookup::text(object, "kind") != "Pod" {
        return None;
    }
    let reason = match lookup::text(object, "status.phase") {
        "Succeeded" => "Succeeded",
        "Failed" => "Failed",
        _ => return None,
    };
    Some(json!([{ "type": "Completed", "status": "True", "reason": reason, "message": "The pod runs no more." }]))
}

/// Up to three texts, and how many more there are.
fn few(mut texts: Vec<String>, total: usize) -> String {
    texts.truncate(3);
    let shown = texts.join(",");
    if total > texts.len() { format!("{shown} + {} more...", total - texts.len()) } else { shown }
}

#[cfg(test)]
mod tests;
