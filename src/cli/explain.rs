//! `narrows explain`: the why, the fix and the sources of a check or an error.

use clap::Args;

use super::{Done, Outcome, written};
use crate::{
    error::Color,
    view::{self, Topic},
};

#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The id of a check or an error, such as group-shared; without one, all are listed
    id: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Explain {
    pub(super) fn run(&self, color: Color) -> Outcome {
        let data = match (&self.id, self.json) {
            (None, false) => view::list_text(color),
            (None, true) => written(view::list_json())?,
            (Some(id), is_json) => {
                let topic = Topic::find(id).map_err(|report| vec![report])?;
                match is_json {
                    true => written(topic.to_json())?,
                    false => topic.text(color),
                }
            }
        };
        Ok(Done::with(data))
    }
}
