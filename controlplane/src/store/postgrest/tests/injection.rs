//! Values that look like the language of filters, at a real PostgREST: each finds its own row and no other.

use agentapi_shared::OrgId;
use serde::Deserialize;

use super::real::Real;
use crate::store::postgrest::client::Name;
use crate::store::postgrest::filter::{Filter, Query};

const NAMES: [&str; 16] = [
    "plain",
    "a,b",
    "a",
    "b",
    "(p)",
    "zz,id.gt.0",
    "x\"),id.not.is.null,name.eq.\"y",
    "quote\"inside",
    "back\\slash",
    "end\\",
    "\\\"",
    "eq.plain",
    "a&name=eq.b#?/%2C+ ",
    "or=(id.gt.0)",
    "*%_",
    "ünï,\u{1F600}\u{202E}",
];

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[tokio::test]
async fn a_value_finds_itself_alone() -> anyhow::Result<()> {
    let real = Real::start().await?;
    let owner = real.owner().await?;
    for name in NAMES {
        let name = name.replace('\'', "''");
        let id = OrgId::generate();
        let user = owner.user;
        let insert =
            format!("insert into agentapi.organizations (id, created_by, name) values ('{id}', '{user}', '{name}');");
        real.cluster.sql(&insert).await?;
    }
    let names = async |filter: Filter| {
        let query = Query::of("organizations", "name").only(&filter).page("", "id.asc", 100);
        let found: Vec<Named> = real.store.client.rows(Name::Service, &query).await.unwrap();
        found.into_iter().map(|row| row.name).collect::<Vec<_>>()
    };
    assert_eq!(names(Filter::gte("name", &"")).await.len(), NAMES.len() + 1, "they are there, and one more");
    let nobody = || Filter::eq("id", &OrgId::from_u128(1));
    for name in NAMES {
        assert_eq!(names(Filter::eq("name", &name)).await, [name]);
        assert_eq!(names(Filter::one_of("name", [name])).await, [name]);
        assert_eq!(names(Filter::any(vec![nobody(), Filter::eq("name", &name)])).await, [name]);
        let both = Filter::all(vec![Filter::lte("name", &name), Filter::gte("name", &name)]);
        assert_eq!(names(Filter::any(vec![both])).await, [name]);
        assert_eq!(names(Filter::all(vec![Filter::eq("name", &name), nobody()])).await, [""; 0]);
    }
    assert_eq!(names(Filter::one_of("name", NAMES)).await, NAMES);
    Ok(())
}
