//! What all cores of the machine do, whoever has them.

use crate::Result;
use std::time::Duration;

/// Time of all cores together, since the machine's start or between two readings.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine {
    /// Nobody wanted them.
    pub(crate) idle: Duration,
    /// Idle, busy, or taken away by the host.
    pub(crate) all: Duration,
}

impl Machine {
    pub(crate) fn read() -> Result<Self> {
        Self::of(&std::fs::read_to_string("/proc/stat")?)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            idle: self.idle.saturating_sub(before.idle),
            all: self.all.saturating_sub(before.all),
        }
    }

    fn of(stat: &str) -> Result<Self> {
        // Hundredths of a second, whatever the kernel's own tick is.
        let time = |ticks: u64| Duration::from_millis(10 * ticks);
        let line = stat.lines().next().ok_or("an empty stat")?;
        // user nice system idle iowait irq softirq steal; what follows is in these already.
        let words = line.split_whitespace().skip(1).take(8);
        let ticks = words.map(|word| Ok(word.parse()?));
        let ticks: Vec<u64> = ticks.collect::<Result<_>>()?;
        let idle = ticks.get(3).ok_or("a short stat")? + ticks.get(4).unwrap_or(&0);
        Ok(Self {
            idle: time(idle),
            all: time(ticks.iter().sum()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Machine;
    use std::time::Duration;

    #[test]
    fn idle_is_waiting_for_a_disk_as_well() {
        let machine = Machine::of("cpu  100 1 50 800 20 0 5 24 7 0\ncpu0 1 2\n").expect("a line");
        assert_eq!(machine.idle, Duration::from_millis(8_200));
        assert_eq!(machine.all, Duration::from_secs(10));
        assert!(Machine::of("cpu 1 2").is_err());
    }
}
