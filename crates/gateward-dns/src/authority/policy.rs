//! Policies of zones as they come: from their files, which whoever may write them decides about, and by the API, which is held to the policy that
//! is there.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use gateward_zone::policy::Policy;
use gateward_zone::{Name, Problem};

use super::guard::Asked;
use super::line::{Info, Line, State};
use super::load::unreadable;
use super::proposal::{Actor, PolicyBase, Refused};
use super::{Authority, Happened};
use crate::folder::{PUBLIC, Stamp, make_folder, read_bounded, read_stamped, replace_durably, write_durably};

/// The text of a policy file, and how the file looked when it was read.
pub(super) type PolicyFile = (Vec<u8>, Stamp);

/// A policy that somebody puts.
pub(super) struct Put<'a> {
    pub(super) text: &'a [u8],
    pub(super) actor: &'a Actor,
    /// A signed token that lifts guardrails.
    pub(super) force: Option<&'a str>,
    pub(super) now: SystemTime,
}

impl PolicyBase {
    /// Whether the policy file is what the change was made for.
    fn holds_for(&self, file: Option<&PolicyFile>) -> Result<(), Refused> {
        if self.is_met(file.map(|(text, _)| &text[..])) { Ok(()) } else { Err(Refused::PolicyBase) }
    }
}

impl Authority {
    /// Replaces the policy of a zone by the text of a policy file, if the policy file is what the change was made for and the policy that is there
    /// allows it. The text from before stays as
    /// `.versions/ORIGIN/replaced.policy.yaml`.
    ///
    /// # Errors
    /// [`Refused`]: there is no such zone, the text is not a policy, or the old one speaks against it, and stays.
    pub async fn put_policy(
        &self,
        origin: &Name,
        text: Vec<u8>,
        base: PolicyBase,
        actor: Actor,
        force: Option<String>,
    ) -> Result<(), Refused> {
        self.must_know(origin)?;
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            let now = SystemTime::now();
            let put = authority.policy_file(&line.origin).and_then(|file| {
                base.holds_for(file.as_ref())?;
                let put = Put { text: &text, actor: &actor, force: force.as_deref(), now };
                authority.replace_policy(line, state, file.as_ref(), &put)
            });
            authority.told(line, &actor, put, now)
        };
        self.ask_in_turn(origin, work).await
    }

    /// The policy file; `None` if there is none.
    pub(super) fn policy_file(&self, origin: &Name) -> Result<Option<PolicyFile>, Refused> {
        let path = self.folder.policy_file(origin);
        match read_stamped(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Refused::failed(format_args!("{}: {error}", path.display()))),
        }
    }

    /// Replaces the policy file that was read as `file`, and no other.
    pub(super) fn replace_policy(
        &self,
        line: &Line,
        state: &mut State,
        file: Option<&PolicyFile>,
        put: &Put<'_>,
    ) -> Result<(), Refused> {
        let Put { text, actor, force, now } = *put;
        if state.zone.is_none() {
            return Err(Refused::NoZone(line.origin.clone()));
        }
        // An edit of the file that nobody looked at yet holds first.
        let text_before = file.map(|(text, _)| &text[..]);
        self.take_policy(line, state, self.parse_policy(&line.origin, text_before));
        if !state.is_policy_known {
            let message = "the policy file cannot be read, so nobody knows who may replace it";
            return Err(Refused::rule("policy", message, "put the policy file in the zones' folder right"));
        }
        let policy = Policy::from_yaml(text, &line.origin, "policy").map_err(Refused::Rules)?;
        let old = line.info.load().policy.clone();
        let asked = Asked { policy: &old, zone: &line.origin, actor, force, now };
        let allowed = asked.replace_policy(&policy, text)?;
        if let Some(before) = text_before {
            self.keep_policy(&line.origin, before).map_err(Refused::failed)?;
        }
        let seen = file.map(|(_, stamp)| *stamp);
        let stored = replace_durably(&self.folder.policy_file(&line.origin), text, PUBLIC, |now| now == seen);
        if stored.map_err(Refused::failed)?.is_none() {
            let message = "the policy file was edited at the same moment";
            return Err(Refused::rule("unread-file", message, "look at it, and try again"));
        }
        self.take_policy(line, state, Ok(policy));
        self.audit.policy(line, actor, text, &allowed, now);
        Ok(())
    }

    /// Keeps the text that is about to be replaced.
    fn keep_policy(&self, origin: &Name, text: &[u8]) -> io::Result<()> {
        let dir = self.folder.versions_dir(origin);
        make_folder(&dir)?;
        write_durably(&dir.join("replaced.policy.yaml"), text, PUBLIC)
    }

    pub(super) fn read_policy(&self, origin: &Name) -> Result<Policy, Vec<Problem>> {
        match read_bounded(&self.folder.policy_file(origin)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.parse_policy(origin, None),
            Err(error) => Err(vec![unreadable(&self.policy_name(origin), &error)]),
            Ok(text) => self.parse_policy(origin, Some(&text)),
        }
    }

    /// What a policy file says, or that there is none.
    fn parse_policy(&self, origin: &Name, text: Option<&[u8]>) -> Result<Policy, Vec<Problem>> {
        text.map_or_else(|| Ok(Policy::default()), |text| Policy::from_yaml(text, origin, &self.policy_name(origin)))
    }

    fn policy_name(&self, origin: &Name) -> String {
        let path = self.folder.policy_file(origin);
        path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// A policy that was read holds from now on. Where it cannot be read, the old one goes on, and nothing may be changed.
    pub(super) fn take_policy(&self, line: &Line, state: &mut State, policy: Result<Policy, Vec<Problem>>) {
        let is_new = match policy {
            Ok(policy) => {
                state.bad_policy.clear();
                state.is_policy_known = true;
                let is_new = *line.info.load().policy != policy;
                if is_new {
                    let policy = Arc::new(policy);
                    line.info.rcu(|info| Info { policy: policy.clone(), ..Info::clone(info) });
                }
                is_new
            }
            Err(problems) => {
                problems.iter().for_each(|problem| tracing::error!(zone = %line.origin, "{problem}"));
                state.bad_policy = problems;
                false
            }
        };
        // Who hears of it looks at what is shown.
        Authority::show(line, state);
        if is_new {
            self.tell(&line.origin, Happened::Policy);
        }
    }
}
