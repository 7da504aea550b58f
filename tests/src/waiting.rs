//! Waiting for a condition, never for a time.

use std::{
    fmt::Debug,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// How long a condition that should hold soon may take on a busy machine before the test gives up. Never part of a verdict.
pub const DEADLINE: Duration = Duration::from_secs(60);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value. An error of the condition counts as "not yet" and is named if the deadline passes.
///
/// # Errors
/// The deadline passed.
pub fn wait_for<T>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let last = match condition() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => None,
            Err(error) => Some(error),
        };
        if start.elapsed() >= deadline {
            return match last {
                Some(error) => {
                    Err(error).with_context(|| format!("waited {deadline:?} for {what}"))
                }
                None => bail!("waited {deadline:?} for {what}"),
            };
        }
        thread::park_timeout(LOOK_AGAIN);
    }
}

/// [`wait_for`] a plain condition.
///
/// # Errors
/// The deadline passed.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    wait_for(what, DEADLINE, || Ok(condition()?.then_some(())))
}

/// Waits until `measure` is `goal`, however long it takes as long as the measure keeps changing.
///
/// # Errors
/// The measure did not change for [`DEADLINE`], or could not be taken.
pub fn wait_while_it_moves<M: PartialEq + Debug>(
    what: &str,
    mut measure: impl FnMut() -> Result<M>,
    done: impl Fn(&M) -> bool,
) -> Result<M> {
    let mut last = measure()?;
    let mut moved = Instant::now();
    loop {
        if done(&last) {
            return Ok(last);
        }
        if moved.elapsed() >= DEADLINE {
            bail!("{what}: stood still at {last:?} for {DEADLINE:?}");
        }
        thread::park_timeout(LOOK_AGAIN);
        let now = measure()?;
        if now != last {
            last = now;
            moved = Instant::now();
        }
    }
}

/// Lets a random moment pass: what the victims of a kill test are doing when it ends is not chosen.
pub fn let_pass(moment: Duration) {
    let end = Instant::now() + moment;
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        thread::park_timeout(left);
    }
}
