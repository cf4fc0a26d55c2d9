//! How many files a process may have open. Every connection is one, and the usual limit of 1024 is below the bounds
//! that the servers set themselves: at their own bound they let a further caller wait, at the system's everybody.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a server opens beside that: listeners, a runtime, its store or its Redis, its log.
const OWN: u64 = 128;

/// Makes room for so many files, nearly all of them connections, within what the system allows this process. Where that
/// is less the log says so, and the connections beyond it wait.
pub fn make_room(files: usize) {
    let needed = OWN.saturating_add(files as u64);
    let limit = getrlimit(Resource::Nofile);
    let wanted = raised(limit, needed);
    let is_set = setrlimit(Resource::Nofile, wanted);
    let open_files = if is_set.is_ok() { wanted.current } else { limit.current };
    match open_files {
        Some(open_files) if open_files < needed => tracing::warn!(
            open_files,
            needed,
            "fewer files may be open than connections; raise the hard limit (ulimit -Hn, LimitNOFILE=)"
        ),
        open_files => tracing::info!(open_files, needed, "so many files may be open"),
    }
}

/// The limit under which so many files may be open, or as many as the hard limit allows; never a lower one.
fn raised(limit: Rlimit, needed: u64) -> Rlimit {
    let most = limit.maximum.map_or(needed, |maximum| maximum.min(needed));
    // None is no limit.
    Rlimit { current: limit.current.map(|current| current.max(most)), ..limit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_raised_as_far_as_is_needed_and_allowed() {
        let limit = |current, maximum| Rlimit { current, maximum };
        let rows = [
            (limit(Some(1024), Some(4096)), limit(Some(2000), Some(4096))),
            (limit(Some(1024), None), limit(Some(2000), None)),
            (limit(Some(1024), Some(1500)), limit(Some(1500), Some(1500))),
            (limit(Some(3000), Some(4096)), limit(Some(3000), Some(4096))),
            (limit(None, None), limit(None, None)),
        ];
        for (before, after) in rows {
            assert_eq!(raised(before, 2000), after, "{before:?}");
        }
    }
}
