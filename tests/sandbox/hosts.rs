//! How hosts differ: which lines of `golden/layers.txt` are others on this one, by the reasons that `golden/layers-differ.txt` gives.
//!
//! A reason is a condition that a host meets or not: its Landlock, its kernel's modules, what files it has and what they say. So a table is
//! expected of every host, also of one that nobody has looked at yet, and a difference without a reason is a finding.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use agentapi_tests::process::binary;
use anyhow::{Context, Result, bail, ensure};

/// Cells by column, of an attempt.
pub(crate) type Cells = BTreeMap<String, String>;

/// What every attempt meets, as the files have it.
#[derive(Debug, Default)]
pub(crate) struct Table {
    /// In their order; the first is the whole jail.
    pub(crate) columns: Vec<String>,
    /// Number, name, cells; in their order.
    pub(crate) rows: Vec<(String, String, Cells)>,
}

/// What conditions ask for, beside files.
#[derive(Debug)]
pub(crate) struct Facts {
    /// Version of Landlock; 0 for none.
    landlock: u32,
    /// Names of the kernel's modules, loaded or not, as paths of files.
    modules: String,
}

impl Facts {
    /// Those of this host.
    pub(crate) fn find() -> Result<Self> {
        let asked = Command::new(binary("sandbox-probe")).arg("landlock").output()?;
        let landlock = String::from_utf8(asked.stdout)?.trim().parse().context("the probe's word on Landlock")?;
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let dir = Path::new("/lib/modules").join(release.trim());
        let lists =
            ["modules.dep", "modules.builtin"].map(|name| fs::read_to_string(dir.join(name)).unwrap_or_default());
        Ok(Self { landlock, modules: lists.concat() })
    }

    /// For people who read of a difference.
    pub(crate) fn landlock(&self) -> u32 {
        self.landlock
    }

    fn meet(&self, condition: &str) -> Result<bool> {
        let words: Vec<&str> = condition.split_whitespace().collect();
        Ok(match *words.as_slice() {
            ["landlock", "<", wanted] => self.landlock < wanted.parse()?,
            ["module", name] => self.modules.contains(&format!("/{name}.ko")),
            ["has", path] => Path::new(path).exists(),
            ["lacks", path] => !Path::new(path).exists(),
            ["says", path, wanted] => fs::read_to_string(path).is_ok_and(|text| text.trim() == wanted),
            _ => bail!("no condition: {condition}"),
        })
    }
}

impl Table {
    /// Reads a file: a head, an empty line, the names of columns, and a line for each attempt. Words are parted by two spaces.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let words = |line: &str| -> Vec<String> {
            line.split("  ").map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let mut lines = text.lines().skip_while(|line| !line.is_empty()).skip(1);
        let columns = words(lines.next().context("names of columns")?);
        let mut rows = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let mut words = words(line).into_iter();
            let (number, name) = (words.next().context("a number")?, words.next().context("a name")?);
            let cells: Vec<String> = words.collect();
            ensure!(cells.len() == columns.len(), "{} cells instead of {}: {line}", cells.len(), columns.len());
            rows.push((number, name, columns.iter().cloned().zip(cells).collect()));
        }
        Ok(Self { columns, rows })
    }

    /// Changes it to what is right for a host; how many cells that were.
    pub(crate) fn adapt(&mut self, differ: &str, facts: &Facts) -> Result<usize> {
        let (mut meets, mut changed) = (false, 0);
        for line in differ.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(conditions) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                meets = true;
                for condition in conditions.split(" and ") {
                    meets &= facts.meet(condition)?;
                }
                continue;
            }
            let mut words = line.split_whitespace();
            let name = words.next().context("a name")?;
            let row = self.rows.iter_mut().find(|(_, known, _)| known == name);
            let (.., cells) = row.with_context(|| format!("no attempt has the name {name}"))?;
            for word in words {
                let (column, now) = word.split_once('=').with_context(|| format!("COLUMN=WORD: {line}"))?;
                // Not every table has every column.
                let Some(cell) = cells.get_mut(column) else { continue };
                if meets {
                    now.clone_into(cell);
                    changed += 1;
                }
            }
        }
        Ok(changed)
    }

    /// As the file has it.
    pub(crate) fn text(&self, head: &str) -> String {
        let mut lines = vec![head.to_owned()];
        let line = |number: &str, name: &str, cells: &mut dyn Iterator<Item = &String>| {
            let cells: String = cells.map(|cell| format!(" {cell:<13}")).collect();
            format!("{number:<3} {name:<28}{cells}").trim_end().to_owned()
        };
        lines.push(line("", "", &mut self.columns.iter()));
        for (number, name, cells) in &self.rows {
            lines.push(line(number, name, &mut self.columns.iter().filter_map(|column| cells.get(column))));
        }
        lines.join("\n") + "\n"
    }
}

#[test]
fn a_table_is_read_as_it_was_written_and_differs_where_a_reason_holds() -> Result<()> {
    let text = include_str!("golden/layers.txt");
    let head = text.split_inclusive("\n\n").next().context("a head")?;
    let mut table = Table::parse(text)?;
    assert_eq!(table.text(&format!("{}\n", head.trim_end())), text);
    let facts = Facts { landlock: 2, modules: "kernel/drivers/net/dummy.ko.xz:\n".to_owned() };
    let differ = "[landlock < 3 and module dummy]\n# why\nfs.sysrq whole=HERE\n[landlock < 2]\nfs.sysrq bare=NOT\n[has /proc/self]\nfs.sysrq user=ALSO\n";
    assert_eq!(table.adapt(differ, &facts)?, 2);
    let (.., cells) = table.rows.iter().find(|(_, name, _)| name == "fs.sysrq").context("its row")?;
    assert_eq!((cells["whole"].as_str(), cells["bare"].as_str(), cells["user"].as_str()), ("HERE", ".", "ALSO"));
    for wrong in ["[linux 6]", "no.such whole=x", "fs.sysrq x"] {
        assert!(table.adapt(wrong, &facts).is_err(), "{wrong}");
    }
    // Every reason can be read, whatever host this is.
    Table::parse(text)?.adapt(include_str!("golden/layers-differ.txt"), &facts).map(drop)
}
