//! Which cores do what.
//!
//! A change of a zone is parsed, built, written and synced on some core. When that is a worker's, its queries wait whenever the kernel
//! works for the change, however little priority the change has; and afterwards find the cache full of something else. Where cores can be spared,
//! each worker gets one of its own, and everything else the cores that are left.

use std::io;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Cores of workers, by the workers' numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cores(Vec<usize>);

impl Cores {
    /// Sets `workers` of this process's cores apart, and moves the calling thread, with all threads that it starts from now on, to the others.
    ///
    /// # Errors
    /// No core would be left ([`io::ErrorKind::InvalidInput`]), or the kernel does not say or change where a thread may run.
    pub fn set_apart(workers: usize) -> io::Result<Self> {
        let mut others = sched_getaffinity(None)?;
        let all: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| others.is_set(*core)).collect();
        if workers >= all.len() {
            let text = format!("{workers} workers leave none of {} cores for everything else", all.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let own = all[..workers].to_vec();
        own.iter().for_each(|core| others.unset(*core));
        sched_setaffinity(None, &others)?;
        Ok(Self(own))
    }

    /// Moves the calling thread to the core of this worker, if it has one.
    ///
    /// # Errors
    /// The kernel does not let it.
    pub(super) fn enter(&self, worker: usize) -> io::Result<()> {
        let Some(core) = self.0.get(worker) else { return Ok(()) };
        let mut own = CpuSet::new();
        own.set(*core);
        Ok(sched_setaffinity(None, &own)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the calling thread may run.
    fn here() -> Vec<usize> {
        let set = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).filter(|core| set.is_set(*core)).collect()
    }

    #[test]
    fn workers_have_cores_of_their_own_if_one_is_left_for_the_rest() {
        // On a thread of its own, which is all that is moved.
        let test = || {
            let all = here();
            let none_left = Cores::set_apart(all.len()).unwrap_err();
            assert_eq!(none_left.kind(), io::ErrorKind::InvalidInput);
            assert_eq!(here(), all, "a refusal moves nobody");
            if all.len() == 1 {
                return;
            }
            let cores = Cores::set_apart(1).unwrap();
            assert_eq!(here(), all[1..]);
            std::thread::scope(|scope| {
                assert_eq!(scope.spawn(here).join().unwrap(), all[1..], "what is started later is there as well");
                let worker = scope.spawn(|| cores.enter(0).map(|()| here()));
                assert_eq!(worker.join().unwrap().unwrap(), all[..1]);
                let another = scope.spawn(|| Cores::default().enter(0).map(|()| here()));
                assert_eq!(another.join().unwrap().unwrap(), all[1..], "no core is set apart");
            });
        };
        std::thread::spawn(test).join().unwrap();
    }
}
