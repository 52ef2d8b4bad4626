//! The user and the groups that a run gets, and what they mean for its environment.

use std::ffi::OsString;

use nix::unistd::{Gid, Group, User, getegid, geteuid, getgroups};

use crate::sys::clone::{Credentials, c_string};

use super::spawn::Operation;
use super::spec::Spec;

/// Who a run is.
#[derive(Debug, Default)]
pub struct Account {
    /// What has to be changed; `None` when it is what the daemon is.
    pub credentials: Option<Credentials>,
    /// Variables that say so.
    pub environment: Vec<(OsString, OsString)>,
}

impl Account {
    /// Looks up what the definition names, in databases that may take their time.
    ///
    /// # Errors
    /// What was looked up, and the errno; `ESRCH` when there is no such user or group (getpwnam(3), getgrnam(3)).
    pub fn of(spec: &Spec) -> Result<Self, (Operation, i32)> {
        let user = spec.user.as_deref().map(find_user).transpose()?;
        let group = spec.user_group.as_deref().map(find_group).transpose()?;
        let supplementary = spec.supplementary_groups.as_deref().map(|groups| groups.iter().map(|group| find_group(group)).collect());
        let supplementary: Option<Vec<Gid>> = supplementary.transpose()?;

        let environment = user.as_ref().map(variables).unwrap_or_default();
        let own = geteuid();
        // Nothing has to be changed for the user that the daemon runs as, unless that is root: it may have given groups up.
        if user.as_ref().is_none_or(|user| user.uid == own && !own.is_root()) && group.is_none() && supplementary.is_none() {
            return Ok(Self { credentials: None, environment });
        }
        let gid = group.or(user.as_ref().map(|user| user.gid)).unwrap_or_else(getegid);
        let groups = match (supplementary, &user) {
            (Some(groups), _) => groups,
            (None, Some(user)) => groups_of(user, gid)?,
            (None, None) => getgroups().map_err(|errno| (Operation::BecomeUser, errno as i32))?,
        };
        let raw = |gids: Vec<Gid>| gids.into_iter().map(Gid::as_raw).collect();
        let uid = user.map_or(own, |user| user.uid);
        Ok(Self { credentials: Some(Credentials { uid: uid.as_raw(), gid: gid.as_raw(), groups: raw(groups) }), environment })
    }
}

fn find_user(name: &str) -> Result<User, (Operation, i32)> {
    let failure = |errno| (Operation::FindUser(name.to_owned()), errno);
    User::from_name(name).map_err(|errno| failure(errno as i32))?.ok_or_else(|| failure(libc::ESRCH))
}

fn find_group(name: &str) -> Result<Gid, (Operation, i32)> {
    let failure = |errno| (Operation::FindGroup(name.to_owned()), errno);
    let found = Group::from_name(name).map_err(|errno| failure(errno as i32))?;
    found.map(|group| group.gid).ok_or_else(|| failure(libc::ESRCH))
}

fn groups_of(user: &User, gid: Gid) -> Result<Vec<Gid>, (Operation, i32)> {
    let failure = |errno| (Operation::FindUser(user.name.clone()), errno);
    let name = c_string(user.name.as_str()).map_err(failure)?;
    nix::unistd::getgrouplist(&name, gid).map_err(|errno| failure(errno as i32))
}

fn variables(user: &User) -> Vec<(OsString, OsString)> {
    vec![
        ("USER".into(), user.name.clone().into()),
        ("LOGNAME".into(), user.name.clone().into()),
        ("HOME".into(), user.dir.clone().into_os_string()),
        ("SHELL".into(), user.shell.clone().into_os_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::definition::Definition;

    fn account(change: impl FnOnce(&mut Definition)) -> Result<Account, (Operation, i32)> {
        let mut definition = Definition { cmd: Some(vec!["true".into()]), ..Definition::default() };
        change(&mut definition);
        Account::of(&Spec::resolve("web".parse().unwrap(), definition).unwrap())
    }

    #[test]
    fn what_is_not_said_is_not_changed() {
        assert!(account(|_| ()).unwrap().credentials.is_none());
    }

    #[test]
    fn a_group_can_be_said_without_a_user() {
        let found = account(|definition| definition.user_group = Some("daemon".into())).unwrap();
        let credentials = found.credentials.unwrap();
        assert_eq!((credentials.uid, credentials.gid), (geteuid().as_raw(), find_group("daemon").unwrap().as_raw()));
        assert!(found.environment.is_empty());
        let found = account(|definition| definition.supplementary_groups = Some(vec!["daemon".into(), "bin".into()])).unwrap();
        let credentials = found.credentials.unwrap();
        assert_eq!((credentials.gid, credentials.groups.len()), (getegid().as_raw(), 2));
    }

    #[test]
    fn a_users_groups_give_way_to_those_that_are_said() {
        let found = account(|definition| {
            (definition.user, definition.user_group) = (Some("root".into()), Some("daemon".into()));
            definition.supplementary_groups = Some(vec![]);
        });
        let credentials = found.unwrap().credentials.unwrap();
        assert_eq!(credentials, Credentials { uid: 0, gid: find_group("daemon").unwrap().as_raw(), groups: vec![] });
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = account(|definition| definition.supplementary_groups = Some(vec!["bin".into(), "no-such-group".into()])).unwrap_err();
        assert_eq!(error, (Operation::FindGroup("no-such-group".into()), libc::ESRCH));
    }
}
