//! What may be limited and counted in the groups below a group.

use std::io;

use super::Group;

/// A controller that sub-processes have a use for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Controller {
    /// Shares of the processors.
    Cpu,
    /// Memory: limits, what is used, kills for lack of it.
    Memory,
    /// The number of processes and threads.
    Pids,
}

impl Controller {
    /// As the kernel calls it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// Some controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controllers {
    /// [`Controller::Cpu`].
    pub cpu: bool,
    /// [`Controller::Memory`].
    pub memory: bool,
    /// [`Controller::Pids`].
    pub pids: bool,
}

impl Controllers {
    /// Whether this one is among them.
    pub const fn has(self, controller: Controller) -> bool {
        match controller {
            Controller::Cpu => self.cpu,
            Controller::Memory => self.memory,
            Controller::Pids => self.pids,
        }
    }

    fn parse(text: &str) -> Self {
        let has = |controller: Controller| text.split_whitespace().any(|word| word == controller.word());
        Self { cpu: has(Controller::Cpu), memory: has(Controller::Memory), pids: has(Controller::Pids) }
    }
}

impl Group {
    /// Those that may be enabled for the groups below it (`cgroup.controllers`).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn controllers(&self) -> io::Result<Controllers> {
        Ok(Controllers::parse(&self.read("cgroup.controllers")?))
    }

    /// Those that are enabled for the groups below it (`cgroup.subtree_control`).
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn enabled(&self) -> io::Result<Controllers> {
        Ok(Controllers::parse(&self.read("cgroup.subtree_control")?))
    }

    /// Enables one for the groups below it.
    ///
    /// # Errors
    /// `EBUSY` when processes are in this very group, which must then have none but at the root ("no internal processes"); `ENOENT` when the
    /// controller is not to be had here; `EACCES` where the group is not ours.
    pub fn enable(&self, controller: Controller) -> io::Result<()> {
        self.write("cgroup.subtree_control", &format!("+{}", controller.word()))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// `EBUSY` when a group below has it enabled for others below itself.
    pub fn disable(&self, controller: Controller) -> io::Result<()> {
        self.write("cgroup.subtree_control", &format!("-{}", controller.word()))
    }

    /// Takes everything back that is enabled for the groups below it, of whatever kind.
    ///
    /// # Errors
    /// As [`Group::disable`].
    pub fn disable_all(&self) -> io::Result<()> {
        let enabled = self.read("cgroup.subtree_control")?;
        enabled.split_whitespace().try_for_each(|word| self.write("cgroup.subtree_control", &format!("-{word}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_whole() {
        let found = Controllers::parse("cpuset cpu io memory hugetlb\n");
        assert_eq!(found, Controllers { cpu: true, memory: true, pids: false });
        assert_eq!(Controllers::parse("cpuset pids"), Controllers { cpu: false, memory: false, pids: true });
        assert!([Controller::Cpu, Controller::Memory, Controller::Pids].map(|one| found.has(one)) == [true, true, false]);
    }
}
