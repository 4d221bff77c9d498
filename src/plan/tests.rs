//! Each test is a picture: the world before, the plan after.
//!
//! `UPDATE_EXPECT=1 cargo test --lib plan` redraws the right-hand side; read the diff before you
//! commit it.

pub(crate) mod world;

mod ending;
mod life;
mod limits;
mod restarts;
mod sim;
mod sources;
mod tally;
mod updates;

use expect_test::Expect;

use super::render;
use world::World;

/// Plans for a world and compares the text.
#[expect(clippy::needless_pass_by_value, reason = "reads as `check(world, expect![..])`")]
fn check(world: &str, expected: Expect) {
    expected.assert_eq(&render(&World::parse(world).plan()));
}
