//! Resource use of this process, as the kernel reports it.

use std::fs;

/// Resident memory in bytes, threads and open descriptors. Only Linux reports them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct KernelStats {
    pub(crate) memory: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
}

impl KernelStats {
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").ok().map(|files| files.count() as u64);
        Self {
            memory: field(&status, "VmRSS:").map(|kib| kib * 1024),
            threads: field(&status, "Threads:"),
            descriptors,
        }
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_proc_status_are_parsed() {
        let status = "Name:\tsoak\nVmRSS:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2048));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn linux_reports_all_values() {
        let kernel = KernelStats::read();
        assert!(kernel.memory > Some(100_000), "{kernel:?}");
        assert!(kernel.threads > Some(0) && kernel.descriptors > Some(2), "{kernel:?}");
    }
}
