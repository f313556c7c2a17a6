//! What is tried: requests that ask for what is another's, and values that an application would have meant to be one value.

use postgrest::{Builder, Postgrest};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{Call, Way};

/// The id of nothing, for filters that only let through what breaks out of them.
const NOBODY: &str = "00000000-0000-4000-8000-000000000000";
/// A schema that PostgREST does not show.
const PRIVATE: &str = "agentapi_private";

/// A table, and a row of somebody else in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Says whose a row is.
    column: String,
    /// What stands there in one's own rows, and in another's.
    own: String,
    foreign: String,
    /// The columns of its key, separated by commas.
    key: String,
    row: Box<RawValue>,
    /// A row like it that could be added.
    new: Box<RawValue>,
    /// Columns of it, with what they have.
    same: Box<RawValue>,
}

impl Table {
    /// A filter for one value that is every row instead.
    fn out_of_or(&self) -> String {
        let value = format!("{NOBODY},{}.not.is.null", self.column);
        format!("{}.eq.{value}", self.column)
    }

    /// The same with a list of values.
    fn out_of_in(&self) -> String {
        let value = format!("{NOBODY}),{0}.not.is.null,{0}.in.({NOBODY}", self.column);
        format!("{}.in.({value})", self.column)
    }
}

pub(crate) fn reads(project: &Postgrest, table: &Table) -> Vec<(&'static str, Builder)> {
    let Table { name, column, own, foreign, .. } = table;
    let rows = || project.from(name).select(column);
    let by_path = project.from(format!("{name}?or=({})", table.out_of_or()));
    vec![
        ("own", rows().eq(column, own)),
        ("foreign", rows().eq(column, foreign)),
        ("count", rows().eq(column, foreign).exact_count()),
        ("both", rows().in_(column, [own, foreign])),
        ("others", rows().neq(column, own)),
        ("not own", rows().not("eq", column, own)),
        ("without filter", rows()),
        ("out of or", rows().or(table.out_of_or())),
        ("out of in", rows().or(table.out_of_in())),
        ("out of path", by_path.select(column)),
        ("out of select", project.from(name).select(format!("{column},organizations(*)"))),
        ("embedded", project.from("organizations").select(format!("id,{name}({column})"))),
        ("all columns", project.from(name).select("*")),
        ("quote", rows().eq(column, format!("{foreign}' or true --"))),
        ("private", project.clone().schema(PRIVATE).from(name).select("*")),
    ]
}

pub(crate) fn changes(project: &Postgrest, table: &Table) -> Vec<(&'static str, Builder)> {
    let Table { name, column, foreign, key, row, new, same, .. } = table;
    // The client has all that it wrote told; of other columns than this one there may be nothing to read, which would be refused first.
    let table_itself = || project.from(name).select(column);
    vec![
        ("insert", table_itself().insert(new.get())),
        ("upsert", table_itself().upsert(row.get())),
        ("upsert by key", table_itself().upsert(row.get()).on_conflict(key)),
        ("update", table_itself().eq(column, foreign).update(same.get())),
        ("update out of or", table_itself().or(table.out_of_or()).update(same.get())),
        ("update of all", table_itself().update(same.get())),
    ]
}

pub(crate) fn removals(project: &Postgrest, table: &Table) -> Vec<(&'static str, Builder)> {
    let table_itself = || project.from(&table.name).select(&table.column);
    vec![
        ("delete", table_itself().eq(&table.column, &table.foreign).delete()),
        ("delete out of in", table_itself().or(table.out_of_in()).delete()),
        ("delete of all", table_itself().delete()),
    ]
}

pub(crate) fn calls(project: &Postgrest, call: &Call) -> Vec<(&'static str, Builder)> {
    let foreign = call.arguments.get();
    let own = foreign.replace(&call.foreign, &call.own);
    let twice = format!("{},\"p_org\":\"{}\"}}", own.strip_suffix('}').unwrap_or(&own), call.foreign);
    let request = |arguments: &str| project.rpc(&call.function, arguments);
    let way = |way: &Way| match way {
        Way::Foreign => ("foreign", request(foreign)),
        Way::Own => ("own", request(&own)),
        Way::Twice => ("twice", request(&twice)),
    };
    call.ways.iter().map(way).collect()
}
