//! How many descriptors sessions may use: not all, so that a supervisor is always taken in.

use std::os::fd::AsRawFd;

/// Of a hundred descriptors, what is left to the supervisor's connections and to listeners.
const RESERVE_PERCENT: u64 = 10;

/// See the module.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Descriptors {
    /// The first number of the reserve.
    reserved: u64,
}

impl Descriptors {
    /// Of a process that may have so many.
    pub(crate) fn of(limit: u64) -> Self {
        Self { reserved: limit - limit / 100 * RESERVE_PERCENT }
    }

    /// Whether a connection that was just made may be kept. A new descriptor is the lowest that is free, so a high number means that all below are in
    /// use.
    pub(crate) fn allow(self, made: &impl AsRawFd) -> bool {
        u64::try_from(made.as_raw_fd()).is_ok_and(|number| number < self.reserved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_is_kept_back() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let number = u64::try_from(file.as_raw_fd()).unwrap();
        assert!(Descriptors { reserved: number + 1 }.allow(&file) && !Descriptors { reserved: number }.allow(&file));
        assert_eq!((Descriptors::of(1000).reserved, Descriptors::of(10).reserved), (900, 10));
    }
}
