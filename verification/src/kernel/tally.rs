//! Counts what the programs reached.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::compare::result;
use super::model::Plan;
use super::program::{Program, number, op};
use super::run::Trace;

/// How often each operation had each outcome, and what else was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Programs by mode.
    pub modes: BTreeMap<String, u64>,
    /// Completions by operation and outcome.
    pub table: BTreeMap<String, BTreeMap<String, u64>>,
    /// Operations that moved data.
    pub moved: u64,
    /// Operations in all.
    pub operations: u64,
    /// Programs in which most operations moved data.
    pub moving: u64,
    /// Programs whose order differed once and not again.
    pub unsteady: u64,
}

impl Tally {
    /// Adds a program and what came of it.
    pub fn add(&mut self, program: &Program, plan: &Plan, trace: &Trace) {
        let mode = program.setup.mode.name();
        *self.modes.entry(mode.into()).or_default() += 1;
        if program.setup.pool.is_some() {
            *self.modes.entry(format!("of these {mode}, small pool")).or_default() += 1;
        }
        let (mut moved, mut all) = (0, 0);
        for cqe in trace.cqes() {
            let Some(n) = number(cqe.user_data) else { continue };
            let Some(sqe) = program.sqes().nth(n) else { continue };
            let want = plan.facts[n].want;
            let transfer = op::reads(sqe.op) || op::writes(sqe.op);
            let outcome = match cqe.res {
                res if res < 0 => result(res),
                _ if !transfer => "ok".into(),
                0 => "ok-zero".into(),
                res if res as u64 == want => "ok-full".into(),
                _ => "ok-short".into(),
            };
            all += 1;
            moved += u64::from(transfer && cqe.res > 0);
            *self.table.entry(op::name(sqe.op).into()).or_default().entry(outcome).or_default() +=
                1;
        }
        self.moved += moved;
        self.operations += all;
        self.moving += u64::from(2 * moved > all);
    }

    /// Adds a program of polls, which moves no data.
    pub fn add_polls(&mut self, mode: &str, outcomes: Vec<(&'static str, String)>) {
        *self.modes.entry(mode.into()).or_default() += 1;
        *self.modes.entry(format!("of these {mode}, polls")).or_default() += 1;
        for (op, outcome) in outcomes {
            *self.table.entry(op.into()).or_default().entry(outcome).or_default() += 1;
        }
    }

    /// Programs in all.
    pub fn programs(&self) -> u64 {
        self.modes.iter().filter(|(name, _)| !name.starts_with("of these")).map(|(_, n)| n).sum()
    }

    /// Of a hundred operations, those that moved data.
    pub fn percent(&self) -> f64 {
        100.0 * self.moved as f64 / self.operations.max(1) as f64
    }

    /// For another process.
    pub fn to_json(&self) -> Value {
        json!({
            "modes": self.modes,
            "table": self.table,
            "moved": self.moved,
            "operations": self.operations,
            "moving": self.moving,
            "unsteady": self.unsteady,
        })
    }

    /// Adds what another process counted.
    pub fn merge(&mut self, from: &Value) {
        let add = |map: &mut BTreeMap<String, u64>, from: &Value| {
            for (key, n) in from.as_object().into_iter().flatten() {
                *map.entry(key.clone()).or_default() += n.as_u64().unwrap_or(0);
            }
        };
        add(&mut self.modes, &from["modes"]);
        for (op, row) in from["table"].as_object().into_iter().flatten() {
            add(self.table.entry(op.clone()).or_default(), row);
        }
        let number = |key: &str| from[key].as_u64().unwrap_or(0);
        self.moved += number("moved");
        self.operations += number("operations");
        self.moving += number("moving");
        self.unsteady += number("unsteady");
    }

    /// The table operation × outcome, for people.
    pub fn show(&self) -> String {
        let mut outcomes: Vec<&String> = self.table.values().flat_map(BTreeMap::keys).collect();
        outcomes.sort_by_key(|name| (name.starts_with('-'), name.as_str()));
        outcomes.dedup();
        let width = outcomes.iter().map(|name| name.len()).max().unwrap_or(0).max(8) + 1;
        let mut text = format!("{:width$}", "");
        let column = |op: &str| op.len().max(11) + 1;
        for op in self.table.keys() {
            text += &format!("{op:>0$}", column(op));
        }
        text.push('\n');
        for outcome in outcomes {
            text += &format!("{outcome:width$}");
            for (op, row) in &self.table {
                let shown = row.get(outcome).map_or(".".into(), u64::to_string);
                text += &format!("{shown:>0$}", column(op));
            }
            text.push('\n');
        }
        for (mode, n) in &self.modes {
            text += &format!("{n:>8} programs {mode}\n");
        }
        if self.unsteady > 0 {
            text +=
                &format!("{:>8} programs whose order differed once and not again\n", self.unsteady);
        }
        text + &format!(
            "{:>8} operations, {:.1} % of them moved data; in {} of {} programs most did\n",
            self.operations,
            self.percent(),
            self.moving,
            self.programs()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tally_survives_the_way_between_processes() {
        let mut tally = Tally { moved: 3, operations: 4, moving: 1, ..Tally::default() };
        tally.modes.insert("inline".into(), 2);
        tally.table.entry("READ".into()).or_default().insert("ok-full".into(), 3);
        let mut other = Tally::default();
        other.merge(&tally.to_json());
        assert_eq!(other, tally);
        other.merge(&tally.to_json());
        assert_eq!(other.programs(), 4);
        assert!((other.percent() - 75.0).abs() < 1e-9);
        assert!(other.show().contains("ok-full"));
    }
}
