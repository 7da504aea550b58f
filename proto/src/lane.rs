//! The two lanes of the line.

use std::{fmt, str::FromStr};

use crate::wire;

/// A lane; an alert overtakes every routine backlog at every hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lane {
    /// Served first.
    Alert,
    /// Everything else.
    Routine,
}

/// The value names no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a lane is alert or routine")]
pub struct LaneError;

impl Lane {
    /// Alert first: the order in which lanes are served.
    pub const ALL: [Lane; 2] = [Lane::Alert, Lane::Routine];

    /// 0 alert, 1 routine: index into per-lane arrays and the spool's lane number.
    pub fn index(self) -> usize {
        match self {
            Lane::Alert => 0,
            Lane::Routine => 1,
        }
    }

    /// The inverse of [`Lane::index`].
    pub fn from_index(index: usize) -> Option<Lane> {
        Lane::ALL.get(index).copied()
    }

    /// The lane that this one is not.
    pub fn other(self) -> Lane {
        match self {
            Lane::Alert => Lane::Routine,
            Lane::Routine => Lane::Alert,
        }
    }

    /// `alert` or `routine`.
    pub fn as_str(self) -> &'static str {
        match self {
            Lane::Alert => "alert",
            Lane::Routine => "routine",
        }
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Lane {
    type Err = LaneError;

    fn from_str(text: &str) -> Result<Self, LaneError> {
        Lane::ALL
            .into_iter()
            .find(|lane| lane.as_str() == text)
            .ok_or(LaneError)
    }
}

impl From<Lane> for wire::Lane {
    fn from(lane: Lane) -> wire::Lane {
        match lane {
            Lane::Alert => wire::Lane::Alert,
            Lane::Routine => wire::Lane::Routine,
        }
    }
}

impl From<Lane> for i32 {
    /// The number of `wire::Lane`, as it stands in a message's field.
    fn from(lane: Lane) -> i32 {
        wire::Lane::from(lane) as i32
    }
}

impl TryFrom<i32> for Lane {
    type Error = LaneError;

    /// From the number of `wire::Lane`, as it stands in a message's field.
    fn try_from(number: i32) -> Result<Self, LaneError> {
        match wire::Lane::try_from(number) {
            Ok(wire::Lane::Alert) => Ok(Lane::Alert),
            Ok(wire::Lane::Routine) => Ok(Lane::Routine),
            Ok(wire::Lane::Unspecified) | Err(_) => Err(LaneError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_lane_leads_back_to_it() {
        for (index, lane) in Lane::ALL.into_iter().enumerate() {
            assert_eq!(lane.index(), index);
            assert_eq!(Lane::from_index(index), Some(lane));
            assert_eq!(lane.to_string().parse(), Ok(lane));
            assert_eq!(Lane::try_from(i32::from(lane)), Ok(lane));
            assert_eq!(lane.other().other(), lane);
            assert_ne!(lane.other(), lane);
        }
    }

    #[test]
    fn no_lane_and_an_unknown_lane_are_refused() {
        assert_eq!(Lane::from_index(2), None);
        assert_eq!(Lane::try_from(0), Err(LaneError));
        assert_eq!(Lane::try_from(3), Err(LaneError));
        assert_eq!("ALERT".parse::<Lane>(), Err(LaneError));
    }
}
