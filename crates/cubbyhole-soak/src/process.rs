//! What the kernel says of this process.

use std::fs;

/// Resident memory in bytes, threads and open descriptors, where the kernel tells them: on Linux.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kernel {
    pub(crate) memory: Option<u64>,
    pub(crate) threads: Option<u64>,
    pub(crate) descriptors: Option<u64>,
}

impl Kernel {
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
    fn fields_are_read_with_their_unit() {
        let status = "Name:\tsoak\nVmRSS:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(field(status, "VmRSS:"), Some(2048));
        assert_eq!(field(status, "Threads:"), Some(7));
        assert_eq!(field(status, "VmSwap:"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_tells_all_of_them() {
        let kernel = Kernel::read();
        assert!(kernel.memory > Some(100_000), "{kernel:?}");
        assert!(kernel.threads > Some(0) && kernel.descriptors > Some(2), "{kernel:?}");
    }
}
