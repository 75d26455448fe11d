//! Commands that change zones, and those that say what would change.

use super::secrets::FileSecrets;
use super::{Author, Common, DRIFT, Ended, Form, Step, code, failed, fallible, print_json, read};
use crate::cli::{USAGE, complain, print};
use clap::{Args, ValueEnum};
use gateward_domain::declaration::Algorithm;
use gateward_domain::plan::{Document, Options, make, to_markdown, to_text};
use gateward_domain::provider::Fleet;
use gateward_domain::{Account, Current, Declaration, Error, apply, drift, rollback};
use gateward_zone::Name;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// What a plan is about.
#[derive(Debug, Args)]
struct Scope {
    /// Only this environment: its zones, its delegation in the root, and the root itself if it is not there yet
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The plan may touch several environments
    #[arg(long)]
    allow_cross_environment: bool,
    /// Take over zones that no declaration made; the plan shows what would be removed from them
    #[arg(long)]
    adopt: bool,
}

/// Where secrets of keys go that are made.
#[derive(Debug, Args)]
struct Keys {
    /// Folder for the files of keys that are made, NAME.key each, as nsupdate reads them
    #[arg(long, value_name = "DIR")]
    keys_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum PlanForm {
    Text,
    Markdown,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    scope: Scope,
    /// Write the plan to this file, for `gateward domain apply --plan`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: PlanForm,
}

#[derive(Debug, Args)]
pub(crate) struct Apply {
    #[command(flatten)]
    common: Common,
    /// The plan that was reviewed, as `gateward domain plan --out` wrote it
    #[arg(long, value_name = "FILE", required_unless_present = "checksum", conflicts_with = "checksum")]
    plan: Option<PathBuf>,
    /// Make the plan anew, and apply it if this is its checksum
    #[arg(long, value_name = "CHECKSUM")]
    checksum: Option<String>,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    author: Author,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    common: Common,
    /// The zone
    #[arg(long, value_name = "ZONE")]
    zone: String,
    /// The serial of the version whose content it gets
    #[arg(long, value_name = "SERIAL")]
    to: u32,
    #[command(flatten)]
    author: Author,
}

#[derive(Debug, Args)]
pub(crate) struct Drift {
    #[command(flatten)]
    common: Common,
    /// Change what is served back to what is declared; what may be touched is said as for a plan
    #[arg(long)]
    repair: bool,
    #[command(flatten)]
    scope: Scope,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    author: Author,
    /// Form of the output
    #[arg(long, value_enum, default_value = "text")]
    format: Form,
}

impl Scope {
    fn plan(&self, declaration: &Declaration, fleet: &Fleet<'_>) -> Step<Document> {
        let options = Options {
            environment: self.environment.clone(),
            allow_cross_environment: self.allow_cross_environment,
            adopt: self.adopt,
        };
        let current = fallible(Current::read(declaration, fleet))?;
        fallible(make(declaration, &current, &options)).map(Document::new)
    }

    fn is_default(&self) -> bool {
        self.environment.is_none() && !self.allow_cross_environment && !self.adopt
    }

    /// What was said must be what the plan in a file was made with: a file says itself what it may touch.
    fn must_fit(&self, document: &Document) -> Step<()> {
        let plan = &document.plan;
        let differs = |plan: String, said: String| Err(failed(&Error::OtherScope { plan, said }));
        if let Some(said) = &self.environment
            && plan.environment.as_ref() != Some(said)
        {
            let made =
                plan.environment.as_ref().map_or("for all environments".to_owned(), |name| format!("for {name}"));
            return differs(made, format!("for {said}"));
        }
        for (said, made, flag) in [
            (self.allow_cross_environment, plan.allow_cross_environment, "--allow-cross-environment"),
            (self.adopt, plan.adopt, "--adopt"),
        ] {
            if said && !made {
                return differs(format!("without {flag}"), format!("with {flag}"));
            }
        }
        Ok(())
    }
}

impl Plan {
    pub(super) fn run(&self) -> Step<ExitCode> {
        let declaration = self.common.declaration()?;
        let fleet = self.common.fleet(&declaration)?;
        let document = self.scope.plan(&declaration, &fleet)?;
        if let Some(path) = &self.out {
            let written = std::fs::write(path, document.to_json());
            written.map_err(|error| failed(&format!("cannot write {}: {error}", path.display())))?;
        }
        print(&match self.format {
            PlanForm::Text => to_text(&document),
            PlanForm::Markdown => to_markdown(&document),
            PlanForm::Json => document.to_json(),
        });
        Ok(ExitCode::SUCCESS)
    }
}

impl Apply {
    pub(super) fn run(&self) -> Step<ExitCode> {
        let declaration = self.common.declaration()?;
        let fleet = self.common.fleet(&declaration)?;
        let document = match (&self.plan, &self.checksum) {
            (Some(path), _) => {
                let document = fallible(Document::from_json(&read(path)?))
                    .inspect_err(|_| complain(&format!("in {}", path.display())))?;
                self.scope.must_fit(&document)?;
                document
            }
            (None, expected) => {
                let document = self.scope.plan(&declaration, &fleet)?;
                let expected = expected.clone().unwrap_or_default();
                if document.checksum != expected {
                    print(&to_text(&document));
                    return Err(failed(&Error::Checksum { expected, found: document.checksum }));
                }
                document
            }
        };
        let account = carry_out(&document, &declaration, &fleet, &self.common, &self.keys, &self.author)?;
        match self.format {
            Form::Text => print(&account.to_text()),
            Form::Json => print_json(&account),
        }
        Ok(code(account.is_complete()))
    }
}

fn carry_out(
    document: &Document,
    declaration: &Declaration,
    fleet: &Fleet<'_>,
    common: &Common,
    keys: &Keys,
    author: &Author,
) -> Step<Account> {
    let algorithm = |key: &str| declaration.keys.get(key).map_or(Algorithm::HmacSha256, |key| key.algorithm).as_str();
    let secrets = FileSecrets { folder: common.folder(), keys_dir: keys.keys_dir.as_deref(), algorithm: &algorithm };
    fallible(apply(document, declaration, fleet, &secrets, &author.read()?, SystemTime::now()))
}

impl Rollback {
    pub(super) fn run(&self) -> Step<ExitCode> {
        let declaration = self.common.declaration()?;
        let zone = self.zone.parse::<Name>().ok().and_then(|origin| declaration.zone(&origin));
        let Some(zone) = zone else {
            let known = declaration.zones.iter().map(|zone| zone.origin.to_string()).collect();
            complain(&format!("error: {}", Error::NoZone { name: self.zone.clone(), known }));
            return Err(Ended(ExitCode::from(USAGE)));
        };
        let fleet = self.common.fleet(&declaration)?;
        let control = declaration.groups.get(&zone.group).map(|group| group.control.as_str()).unwrap_or_default();
        let serial = fallible(rollback(&fleet, control, &zone.origin, self.to, &self.author.read()?))?;
        print(&format!("{} has the content of serial {} again, as serial {serial}\n", zone.origin, self.to));
        Ok(ExitCode::SUCCESS)
    }
}

impl Drift {
    pub(super) fn run(&self) -> Step<ExitCode> {
        if !self.repair && !self.scope.is_default() {
            complain(
                "error: --environment, --allow-cross-environment and --adopt say what --repair may touch; give it too",
            );
            return Err(Ended(ExitCode::from(USAGE)));
        }
        let declaration = self.common.declaration()?;
        let fleet = self.common.fleet(&declaration)?;
        let document = match self.repair {
            true => self.scope.plan(&declaration, &fleet)?,
            false => fallible(drift(&declaration, &fleet))?,
        };
        let clean = document.plan.is_empty();
        if clean || !self.repair {
            match self.format {
                Form::Text => print(&to_text(&document)),
                Form::Json => print_json(&json!({"drift": !clean, "plan": document.plan})),
            }
            return Ok(if clean { ExitCode::SUCCESS } else { ExitCode::from(DRIFT) });
        }
        let account = carry_out(&document, &declaration, &fleet, &self.common, &self.keys, &self.author)?;
        match self.format {
            Form::Text => print(&format!("{}\n{}", to_text(&document), account.to_text())),
            Form::Json => print_json(&json!({"drift": true, "plan": document.plan, "repair": account})),
        }
        Ok(code(account.is_complete()))
    }
}
