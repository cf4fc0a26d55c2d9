//! What the kernel says of a process: its processor time and its memory.

use anyhow::Context;
use std::fs;

/// Nanoseconds of processor time of all its threads so far.
pub(crate) fn processor_nanos(pid: u32) -> anyhow::Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // Unlike the ticks of `stat` it is told to the nanosecond. A thread may have ended meanwhile.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanos = text.split(' ').next().context("an empty schedstat")?;
        sum += nanos.parse::<u64>().context("schedstat")?;
    }
    Ok(sum)
}

/// Bytes of memory that it has now.
pub(crate) fn resident(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmRSS:")
}

/// The most that it had since [`forget_peak`].
pub(crate) fn peak(pid: u32) -> anyhow::Result<u64> {
    status(pid, "VmHWM:")
}

/// From here on the peak is counted afresh.
pub(crate) fn forget_peak(pid: u32) -> anyhow::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").context("a peak that can be forgotten")
}

fn status(pid: u32, name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line =
        status.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    let kibibytes: u64 = line.trim_matches(|c: char| !c.is_ascii_digit()).parse()?;
    Ok(1024 * kibibytes)
}
