//! Whatever a value is, a query says what it was made of and nothing more. Read back by a reader of its own, written after PostgREST's grammar.

use proptest::prelude::*;

use super::*;

/// The parameters of a query string, decoded as a server does.
fn parameters(path: &str) -> Vec<(String, String)> {
    let url = reqwest::Url::parse(&format!("http://postgrest/{path}")).unwrap();
    assert_eq!((url.path(), url.fragment()), ("/things", None));
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

/// What PostgREST reads in `text` up to the end of one value in quotes, and what is left.
fn unquoted(text: &str) -> (String, &str) {
    let mut out = String::new();
    let mut rest = text.strip_prefix('"').expect("a quote").char_indices();
    while let Some((at, c)) = rest.next() {
        match c {
            '"' => return (out, &text[1 + at + 1..]),
            '\\' => out.push(rest.next().expect("an escaped character").1),
            other => out.push(other),
        }
    }
    panic!("a value without an end: {text}");
}

fn query() -> Query {
    Query::of("things", "id,name")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_value_stays_one(values in proptest::collection::vec(any::<String>(), 1..4), one in ".*[,.()\"\\\\&=*%+:#?/ ].*") {
        let made = query()
            .only(&Filter::eq("name", &one))
            .only(&Filter::one_of("name", &values))
            .only(&Filter::any(vec![
                Filter::lt("name", &one),
                Filter::all(vec![Filter::gte("id", &values[0]), Filter::null("gone")]),
            ]))
            .page("", "id.desc", 7);
        let found = parameters(&made.path_and_query());
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        prop_assert_eq!(names, ["select", "name", "name", "or", "order", "limit"]);
        prop_assert_eq!(&found[1].1, &format!("eq.{one}"));
        let mut rest = found[2].1.strip_prefix("in.(").unwrap();
        for (index, value) in values.iter().enumerate() {
            rest = if index == 0 { rest } else { rest.strip_prefix(',').unwrap() };
            let (read, left) = unquoted(rest);
            prop_assert_eq!(&read, value);
            rest = left;
        }
        prop_assert_eq!(rest, ")");
        let (first, rest) = unquoted(found[3].1.strip_prefix("(name.lt.").unwrap());
        let (second, rest) = unquoted(rest.strip_prefix(",and(id.gte.").unwrap());
        prop_assert_eq!((&first, &second, rest), (&one, &values[0], ",gone.is.null))"));
        prop_assert_eq!((found[4].1.as_str(), found[5].1.as_str()), ("id.desc", "7"));
    }
}

#[test]
fn a_page_of_what_is_embedded_is_its_own() {
    let made = query().only_if(None).only_if(Some(Filter::gt("parts.id", &1))).page("parts", "id.desc", 2);
    let expected = "things?select=id%2Cname&parts.id=gt.1&parts.order=id.desc&parts.limit=2";
    assert_eq!(made.path_and_query(), expected);
    assert_eq!(query().only(&Filter::lte("at", &"+0")).path_and_query(), "things?select=id%2Cname&at=lte.%2B0");
}
