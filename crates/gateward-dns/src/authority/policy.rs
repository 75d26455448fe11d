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
use crate::folder::{PUBLIC, Stamp, make_folder, read_bounded, replace_durably, write_durably};

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
        if self.known(origin).is_none() {
            return Err(Refused::NoZone(origin.clone()));
        }
        let work = move |authority: &Authority, line: &Line, state: &mut State| {
            let now = SystemTime::now();
            let put = authority
                .compare_policy(&line.origin, &base)
                .and_then(|()| authority.replace_policy(line, state, &text, &actor, force.as_deref(), now));
            match &put {
                Ok(()) => authority.counts.good(true),
                Err(error) => {
                    authority.counts.bad(error);
                    authority.audit.refusal(line, &actor, error, now);
                }
            }
            put
        };
        self.in_turn(origin, work).await.unwrap_or_else(|| Err(super::lost()))
    }

    fn compare_policy(&self, origin: &Name, base: &PolicyBase) -> Result<(), Refused> {
        if *base == PolicyBase::Any || base.is_met(self.policy_file(origin)?.as_deref()) {
            return Ok(());
        }
        Err(Refused::PolicyBase)
    }

    /// The policy file; `None` if there is none.
    fn policy_file(&self, origin: &Name) -> Result<Option<Vec<u8>>, Refused> {
        let path = self.folder.policy_file(origin);
        match read_bounded(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Refused::Failed(format!("{}: {error}", path.display()))),
        }
    }

    fn replace_policy(
        &self,
        line: &Line,
        state: &mut State,
        text: &[u8],
        actor: &Actor,
        force: Option<&str>,
        now: SystemTime,
    ) -> Result<(), Refused> {
        if state.zone.is_none() {
            return Err(Refused::NoZone(line.origin.clone()));
        }
        // An edit of the file that nobody looked at yet holds first.
        let file = self.folder.policy_file(&line.origin);
        let seen = Stamp::of(&file);
        self.take_policy(line, state, self.read_policy(&line.origin));
        if !state.is_policy_known {
            let message = "the policy file cannot be read, so nobody knows who may replace it";
            return Err(Refused::rule("policy", message, "put the policy file in the zones' folder right"));
        }
        let policy = Policy::from_yaml(text, &line.origin, "policy").map_err(Refused::Rules)?;
        let old = line.info.load().policy.clone();
        let asked = Asked { policy: &old, zone: &line.origin, actor, force, now };
        let allowed = asked.replace_policy(&policy, text)?;
        self.keep_policy(&line.origin)?;
        let stored = replace_durably(&file, text, PUBLIC, |now| now == seen);
        if stored.map_err(|error| Refused::Failed(error.to_string()))?.is_none() {
            let message = "the policy file was edited at the same moment";
            return Err(Refused::rule("unread-file", message, "look at it, and try again"));
        }
        self.take_policy(line, state, Ok(policy));
        self.audit.policy(line, actor, text, &allowed, now);
        Ok(())
    }

    /// Keeps the text that is about to be replaced.
    fn keep_policy(&self, origin: &Name) -> Result<(), Refused> {
        let Some(text) = self.policy_file(origin)? else { return Ok(()) };
        let dir = self.folder.versions_dir(origin);
        let kept = make_folder(&dir).and_then(|()| write_durably(&dir.join("replaced.policy.yaml"), &text, PUBLIC));
        kept.map_err(|error| Refused::Failed(error.to_string()))
    }

    pub(super) fn read_policy(&self, origin: &Name) -> Result<Policy, Vec<Problem>> {
        let path = self.folder.policy_file(origin);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match read_bounded(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Policy::default()),
            Err(error) => Err(vec![unreadable(&name, &error)]),
            Ok(text) => Policy::from_yaml(&text, origin, &name),
        }
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
