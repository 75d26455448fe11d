//! Asking the function of a request that says where its next try goes.

use super::Vm;
use crate::retry::Machine;
use crate::state::{Phase, Reach, Scene};
use crate::timing;
use gateward_plugin::Exchange;

impl Machine for Vm {
    fn ask_before_retry(&self, number: u32, exchange: &mut Exchange) -> bool {
        let Some(known) = self.configuration(number) else { return false };
        let request = self.request(exchange);
        let timed = known.called(Phase::Balancer);
        let reach = Reach::Exchange(exchange);
        let mut scene = Scene { reach, chunk: None, phase: Phase::Balancer, instance: number, request };
        let ask = || self.ask_before_retry.call::<Option<String>>(());
        let (asked, stopped) =
            timing::during(timed.as_ref(), || self.watched.during(|| self.shared.state.enter(&mut scene, ask)));
        if stopped {
            known.counts.was_stopped();
        }
        // What it said besides is not the next call's.
        self.shared.forget();
        let refused = match asked {
            Ok(None) => return true,
            Ok(Some(refused)) => refused,
            Err(error) => error.to_string(),
        };
        self.failed(&known.entity, &known.counts, Phase::Balancer, &format!("retry callback: {refused}"));
        false
    }
}
