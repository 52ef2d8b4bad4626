//! Control groups, version 2 (cgroups(7), Documentation/admin-guide/cgroup-v2.rst): a tree of processes that no process leaves by forking.
//!
//! - [`group`]: one group, held by its directory: make and remove groups, who is in them, ending all at once;
//! - [`hierarchy`]: where the hierarchy is mounted, and where in it this process is;
//! - [`controllers`]: what may be limited and counted; [`accounting`]: what was counted;
//! - [`events`]: waiting until a group is empty.

pub mod accounting;
pub mod controllers;
pub mod events;
pub mod group;
pub mod hierarchy;

pub use controllers::{Controller, Controllers};
pub use events::Events;
pub use group::Group;
pub use hierarchy::Hierarchy;

#[cfg(test)]
pub(crate) mod testing {
    //! A group of the test's own, removed when dropped.

    use super::*;

    /// A group to try things in.
    pub(crate) struct TestGroup {
        parent: Group,
        name: String,
        path: std::path::PathBuf,
        pub(crate) group: Group,
    }

    impl TestGroup {
        /// `None`, said on standard error, where this process may not make groups.
        pub(crate) fn new(what: &str) -> Option<Self> {
            let made = || -> std::io::Result<Self> {
                let hierarchy = Hierarchy::find()?.ok_or_else(|| std::io::Error::other("no cgroup v2 hierarchy is mounted"))?;
                let parent = Group::open(&hierarchy.own)?;
                let name = format!("procman-test-{what}.{}", std::process::id());
                let group = parent.create(&name)?;
                Ok(Self { parent, path: hierarchy.own.join(&name), name, group })
            };
            made().inspect_err(|error| eprintln!("skipped: this process may not make a group of cgroup v2: {error}")).ok()
        }

        /// Where it is.
        pub(crate) fn path(&self) -> std::path::PathBuf {
            self.path.clone()
        }

        /// Tries to remove it.
        pub(crate) fn parent_remove(&self) -> std::io::Result<()> {
            self.parent.remove_tree(&self.name)
        }
    }

    impl Drop for TestGroup {
        fn drop(&mut self) {
            drop(self.group.kill());
            for _ in 0..100_000 {
                if self.parent.remove_tree(&self.name).is_ok() {
                    return;
                }
                std::thread::yield_now();
            }
            eprintln!("the group {} is left", self.name);
        }
    }
}
