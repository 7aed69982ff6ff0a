//! What an operator sees of PFs and VFs: a plan, the state of pools, and the life of each VF.

mod life;
mod plan;
#[cfg(test)]
mod plan_test;
mod row;
mod status;
mod step;

pub use self::{
    life::{Explanation, VfRow, vf_text, vfs_text},
    plan::plan_text,
    row::{Row, rows},
    status::{PoolRow, Status, broken_text, pools, status_text},
};
