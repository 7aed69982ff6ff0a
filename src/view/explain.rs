//! Why a check or an error exists, what puts it right, and where that is written.

use iommu::isolation::{Check, Verdict};
use serde::Serialize;

use super::paint::{Ink, paint, wrapped};
use crate::{
    error::{Blame, Color, ErrorId, Id, Report},
    spec::nearest,
};

/// A section for each error and each check.
const ERRORS: &str = include_str!("../../docs/errors.md");

/// Something that can be explained: a check or an error.
#[derive(Clone, Copy, Debug)]
pub struct Topic(Id);

/// A topic as JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    id: &'static str,
    title: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<CheckDocument>,
    blame: Blame,
    text: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckDocument {
    why: &'static str,
    remedy: &'static str,
    accepted: Option<&'static str>,
    sources: &'static [&'static str],
}

/// What `--json` prints.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Documents {
    api_version: &'static str,
    kind: &'static str,
    topics: Vec<Document>,
}

impl Topic {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        Id::all().map(Self)
    }

    /// The topic of an id.
    ///
    /// # Errors
    ///
    /// `usage`: there is none of that name.
    pub fn find(name: &str) -> Result<Self, Report> {
        if let Some(topic) = Self::all().find(|topic| topic.0.name() == name) {
            return Ok(topic);
        }
        let names: Vec<&str> = Id::all().map(Id::name).collect();
        let fix = match nearest(name, &names) {
            Some(near) => format!("did you mean {near}? `narrows explain` lists all"),
            None => "`narrows explain` lists all".to_owned(),
        };
        Err(Report::new(
            ErrorId::Usage,
            format!("{name} is the id of neither a check nor an error"),
            format!("there are {} ids", names.len()),
            fix,
        ))
    }

    fn check(self) -> Option<&'static Check> {
        match self.0 {
            Id::Check(id) => Some(id.check()),
            Id::Tool(_) => None,
        }
    }

    /// The topic for a person to read.
    #[must_use]
    pub fn text(&self, color: Color) -> String {
        let mut text = paint(color, Ink::Strong, self.0.name());
        if let Some(check) = self.check() {
            text.push_str(&format!(": {}\n", check.title));
            text.push_str(&entry("why", &format!("otherwise {}", check.why)));
            text.push_str(&entry("fix", check.remedy));
            text.push_str(&entry("accept", &acceptance(check)));
            for source in check.sources {
                text.push_str(&entry("source", source));
            }
        } else {
            text.push('\n');
        }
        text.push_str(&format!("\n{}", plain(section(self.0))));
        text
    }

    /// The topic as a JSON document of kind `Explanation`.
    ///
    /// # Errors
    ///
    /// None is known.
    pub fn to_json(&self) -> serde_json::Result<String> {
        to_json("Explanation", vec![self.document()])
    }

    fn title(&self) -> String {
        match self.check() {
            Some(check) => check.title.to_owned(),
            None => first_sentence(&plain(section(self.0))),
        }
    }

    fn document(&self) -> Document {
        Document {
            id: self.0.name(),
            title: self.title(),
            check: self.check().map(|check| CheckDocument {
                why: check.why,
                remedy: check.remedy,
                accepted: check.accepted,
                sources: check.sources,
            }),
            blame: self.0.blame(),
            text: plain(section(self.0)),
        }
    }
}

/// All ids with their titles, for a person to read.
#[must_use]
pub fn list_text(color: Color) -> String {
    let width = Id::all().map(|id| id.name().len()).max().unwrap_or(0);
    let mut text = String::new();
    for (heading, is_check) in [("checks", true), ("errors", false)] {
        text.push_str(&format!("{}\n", paint(color, Ink::Strong, heading)));
        for topic in Topic::all().filter(|topic| topic.check().is_some() == is_check) {
            let indent = " ".repeat(width.saturating_add(4));
            let title = wrapped(&topic.title(), &indent, indent.len());
            text.push_str(&format!("  {:width$}  {title}\n", topic.0.name()));
        }
    }
    text
}

/// All topics as a JSON document of kind `Explanations`.
///
/// # Errors
///
/// None is known.
pub fn list_json() -> serde_json::Result<String> {
    let topics = Topic::all().map(|topic| topic.document()).collect();
    to_json("Explanations", topics)
}

fn to_json(kind: &'static str, topics: Vec<Document>) -> serde_json::Result<String> {
    serde_json::to_string_pretty(&Documents {
        api_version: "v1alpha1",
        kind,
        topics,
    })
}

/// Whether and how a refusal can be accepted.
fn acceptance(check: &Check) -> String {
    match (check.accepted, check.worst) {
        (Some(cost), _) => format!(
            "by name, for a device: accept = [\"{}\"] in the guest file; given up: {cost}",
            check.id
        ),
        (None, Verdict::Refuse) => "cannot be accepted".to_owned(),
        (None, Verdict::Pass | Verdict::Fixable | Verdict::Warn) => {
            "not needed: it never refuses".to_owned()
        }
    }
}

/// A label and words, wrapped.
fn entry(label: &str, words: &str) -> String {
    format!("  {label:<7} {}\n", wrapped(words, "          ", 10))
}

/// The section of an id in docs/errors.md, without its heading.
fn section(id: Id) -> &'static str {
    let heading = format!("\n## {id}\n");
    let Some((_, rest)) = ERRORS.split_once(&heading) else {
        return "";
    };
    rest.split("\n## ").next().unwrap_or(rest).trim()
}

/// Markdown as plain text: the words of a link, then where it leads.
fn plain(markdown: &str) -> String {
    let mut text = String::new();
    let mut rest = markdown;
    while let Some((before, (label, target, after))) = next_link(rest) {
        let target = match target.strip_prefix('#') {
            Some(id) => format!("narrows explain {id}"),
            None => match target.strip_prefix("../") {
                Some(path) => path.to_owned(),
                None => format!("docs/{target}"),
            },
        };
        text.push_str(&format!("{before}{label} ({target})"));
        rest = after;
    }
    text.push_str(rest);
    text.push('\n');
    text
}

/// What stands before the next link, and its label, its target and what follows.
fn next_link(text: &str) -> Option<(&str, (&str, &str, &str))> {
    let (head, tail) = text.split_once("](")?;
    let (before, label) = head.rsplit_once('[')?;
    let (target, after) = tail.split_once(')')?;
    Some((before, (label, target, after)))
}

/// The first sentence behind the line that names the fault, on one line.
fn first_sentence(section: &str) -> String {
    let paragraph = section.split("\n\n").nth(1).unwrap_or_default();
    let line = paragraph.replace('\n', " ");
    let end = line.find(". ").unwrap_or(line.len());
    line.get(..end)
        .unwrap_or(&line)
        .trim_end_matches('.')
        .trim()
        .to_owned()
}
