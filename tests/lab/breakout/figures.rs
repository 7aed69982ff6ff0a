//! What the probes came to, put together: how many are prevented, by how many layers, and what the layers show.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

/// Probes that are not reached even without any layer, and why; all others must be.
pub(super) const WITHOUT_CONTROL: [(&str, &str, &str); 3] = [
    (
        "A08",
        "vd",
        "the lab's kernel has no handles of files (CONFIG_FHANDLE)",
    ),
    (
        "C20",
        "vd",
        "no layer stops it: each side's own checks do, whatever the environment",
    ),
    (
        "C22",
        "d",
        "no layer stops it: vfio-pci itself refuses what the function does not have",
    ),
];

/// All outcomes of one or more runs, by probe and process.
pub(super) struct Figures {
    runs: Vec<Value>,
    probes: BTreeMap<(String, String), BTreeMap<String, Value>>,
    groups: Vec<String>,
}

impl Figures {
    pub(super) fn of(texts: &[&str]) -> Self {
        let runs = texts.iter().map(|text| serde_json::from_str(text).unwrap());
        let runs: Vec<Value> = runs.collect();
        let mut probes: BTreeMap<_, BTreeMap<String, Value>> = BTreeMap::new();
        for outcome in all(&runs, "outcomes") {
            let key = (text_of(outcome, "id"), text_of(outcome, "role"));
            let environment = text_of(outcome, "environment");
            probes
                .entry(key)
                .or_default()
                .insert(environment, outcome.clone());
        }
        let groups = all(&runs, "environments")
            .filter_map(|e| Some(e["name"].as_str()?.strip_prefix("only-")?.to_owned()))
            .collect();
        Self {
            runs,
            probes,
            groups,
        }
    }

    /// How many environments there were.
    pub(super) fn environments(&self) -> usize {
        all(&self.runs, "environments").count()
    }

    /// How long the runs took.
    pub(super) fn milliseconds(&self) -> u64 {
        self.sum("milliseconds")
    }

    fn sum(&self, key: &str) -> u64 {
        self.runs.iter().filter_map(|run| run[key].as_u64()).sum()
    }

    /// Outcomes of any environment with a try that crashed, as text.
    pub(super) fn crashed(&self) -> Vec<String> {
        all(&self.runs, "outcomes")
            .filter(|outcome| outcome.get("crashed").is_some())
            .map(Value::to_string)
            .collect()
    }

    /// Outcomes in this environment that are not of these verdicts, as text.
    pub(super) fn others(&self, environment: &str, wanted: &[&str]) -> Vec<String> {
        self.each(environment)
            .filter(|(_, outcome)| !wanted.contains(&verdict(outcome)))
            .filter(|(key, _)| environment != "none" || !has_no_control(key))
            .map(|((id, role), outcome)| format!("{role}:{id} {outcome}"))
            .collect()
    }

    fn each(&self, environment: &str) -> impl Iterator<Item = (&(String, String), &Value)> {
        self.probes
            .iter()
            .filter_map(move |(key, by)| Some((key, by.get(environment)?)))
    }

    /// The calls that a process could make in the whole sandbox, its own end among them.
    pub(super) fn surface(&self, role: &str) -> BTreeSet<u64> {
        let outcome = &self.probes[&("B01".to_owned(), role.to_owned())]["full"];
        let calls = outcome["calls"]["allowed"].as_array().unwrap();
        calls.iter().filter_map(Value::as_u64).collect()
    }

    /// The calls that the kernel shows to no filter.
    fn past_every_filter(&self, role: &str) -> Value {
        self.probes[&("B01".to_owned(), role.to_owned())]["full"]["calls"]["past-every-filter"]
            .clone()
    }

    /// How many calls the kernel would answer without any layer.
    fn surface_without(&self, role: &str) -> usize {
        let outcome = &self.probes[&("B01".to_owned(), role.to_owned())]["none"];
        outcome["reached"].as_array().unwrap().len()
    }

    /// The groups of layers that stop a probe when one alone is there.
    fn stopped_alone(&self, by: &BTreeMap<String, Value>) -> Vec<&str> {
        let stops = |group: &&String| {
            let outcome = by.get(&format!("only-{group}"));
            outcome.is_some_and(|outcome| verdict(outcome) == "prevented")
        };
        self.groups
            .iter()
            .filter(stops)
            .map(String::as_str)
            .collect()
    }

    /// How many tries work without any layer, and how many of them each group stops when it alone is there.
    fn tries_stopped_alone(&self, by: &BTreeMap<String, Value>) -> Value {
        // Where a probe is not tried, nothing is stopped.
        let reached = |environment: &str| -> BTreeSet<u64> {
            let list = by.get(environment).or_else(|| by.get("none"));
            let list = list.unwrap()["reached"].as_array().unwrap();
            list.iter().filter_map(Value::as_u64).collect()
        };
        let open = reached("none");
        let mut counts = json!({ "none": open.len() });
        for group in &self.groups {
            let name = format!("only-{group}");
            // Under a filter one try is made, and the others are those of the whole sandbox.
            let left = if group == "filter" {
                reached("full")
            } else {
                reached(&name)
            };
            counts[group] = json!(open.difference(&left).count());
        }
        counts
    }

    /// In how many environments that lack one group the probe is still stopped.
    fn depth(&self, by: &BTreeMap<String, Value>) -> usize {
        let is_stopped = |group: &&String| {
            let outcome = by.get(&format!("without-{group}"));
            outcome.is_some_and(|outcome| matches!(verdict(outcome), "prevented" | "absent"))
        };
        self.groups.iter().filter(is_stopped).count()
    }

    /// Everything, for docs/data/breakout.json.
    pub(super) fn summary(&self) -> Value {
        let mut rows = Vec::new();
        let mut depths = Vec::new();
        let mut alone_counts = Vec::new();
        let mut brittle = Vec::new();
        for ((id, role), by) in &self.probes {
            let full = &by["full"];
            let alone = self.stopped_alone(by);
            let depth = self.depth(by);
            let has_control = verdict(&by["none"]) == "reached";
            // The sweeps and those that no layer is for would count nothing of the layers.
            if has_control {
                depths.push(depth);
                alone_counts.push(alone.len());
                if alone.len() <= 1 {
                    brittle.push(format!("{role}:{id}"));
                }
            }
            rows.push(json!({
                "id": id, "role": role, "title": full["title"], "verdict": full["verdict"],
                "control": by["none"]["verdict"], "tries": full["tries"], "blocked_by": full["blocked"],
                "stopped_without_one_layer": depth, "stopped_by_one_layer_alone": alone,
                "tries_stopped_by_one_layer_alone": self.tries_stopped_alone(by),
            }));
        }
        let prevented = |role: &str| {
            let own = self.each("full").filter(|((_, r), _)| r == role);
            let verdicts: Vec<&str> = own.map(|(_, outcome)| verdict(outcome)).collect();
            let good = verdicts.iter().filter(|v| **v != "reached").count();
            json!({ "probes": verdicts.len(), "prevented": good })
        };
        let tries: u64 = self
            .each("full")
            .filter_map(|(_, outcome)| outcome["tries"].as_u64())
            .sum();
        let surface = |role: &str| {
            json!({
                "calls": self.surface(role), "count": self.surface(role).len(),
                "without_any_layer": self.surface_without(role), "past_every_filter": self.past_every_filter(role),
            })
        };
        json!({
            "launches": self.sum("launches"), "milliseconds": self.milliseconds(),
            "environments": all(&self.runs, "environments").collect::<Vec<_>>(),
            "tries_in_the_whole_sandbox": tries,
            "v": prevented("v"), "d": prevented("d"),
            "surface": { "v": surface("v"), "d": surface("d") },
            "single_layers": self.groups,
            "stopped_without_one_layer": spread(&mut depths),
            "layers_that_stop_alone": spread(&mut alone_counts),
            "stopped_by_one_layer_only": brittle,
            "without_control": WITHOUT_CONTROL.map(|(id, roles, why)| json!([id, roles, why])),
            "probes": rows,
        })
    }

    /// The table of layers: what shows each.
    pub(super) fn table(&self) -> String {
        let mut text = String::from(
            "| layer | probes it stops alone | tries it stops alone | for example |\n|---|---|---|---|\n",
        );
        let controlled: Vec<_> = self
            .probes
            .iter()
            .filter(|(_, by)| verdict(&by["none"]) == "reached")
            .collect();
        for group in &self.groups {
            let stopped: Vec<String> = controlled
                .iter()
                .filter(|(_, by)| self.stopped_alone(by).contains(&group.as_str()))
                .map(|((id, role), _)| format!("{role}:{id}"))
                .collect();
            let (mut open, mut closed) = (0, 0);
            for (_, by) in &controlled {
                let tries = self.tries_stopped_alone(by);
                open += tries["none"].as_u64().unwrap();
                closed += tries[group].as_u64().unwrap();
            }
            text += &format!(
                "| {group} | {} of {} | {closed} of {open} | {} |\n",
                stopped.len(),
                controlled.len(),
                stopped
                    .iter()
                    .take(6)
                    .cloned()
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        text
    }
}

/// All entries of a list in all runs.
fn all<'a>(runs: &'a [Value], list: &'static str) -> impl Iterator<Item = &'a Value> {
    runs.iter()
        .flat_map(move |run| run[list].as_array().unwrap())
}

/// The least, the middle and the most.
fn spread(values: &mut [usize]) -> Value {
    values.sort_unstable();
    json!({
        "min": values.first(), "median": values.get(values.len() / 2), "max": values.last(),
    })
}

fn has_no_control((id, role): &(String, String)) -> bool {
    WITHOUT_CONTROL
        .iter()
        .any(|(known, roles, _)| known == id && roles.contains(role.as_str()))
}

fn verdict(outcome: &Value) -> &str {
    outcome["verdict"].as_str().unwrap()
}

fn text_of(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap().to_owned()
}
