//! Replacing filters again and again.

use super::{Lab, instance, logging};
use crate::limits::INSTANCES;
use crate::testing::Plain;
use crate::types::FieldMap;
use crate::{Filter, FilterConfig, identity};
use std::sync::Arc;

#[test]
fn what_is_replaced_is_freed_when_its_last_stream_ends() {
    let lab = Lab::new();
    let mut old: Option<(Arc<Filter>, crate::Instance, u32)> = None;
    // More than fit into the pool at once; the code changes now and then, the configuration each time.
    for number in 0..INSTANCES + 50 {
        let answer = format!("(i32.const {})", number / 32);
        let wat = logging(&[("proxy_on_request_headers", &answer)]);
        let configuration = number.to_string().into_bytes();
        let filter = lab.try_filter(&wat, |config| config.configuration = configuration).unwrap();
        let mut new = instance(&filter);
        let id = new.create_stream().unwrap();
        if let Some((_, mut old, old_id)) = old.take() {
            old.headers(old_id, &mut Plain::default(), FieldMap::RequestHeaders, true).unwrap();
            old.end_stream(old_id, &mut Plain::default()).unwrap();
        }
        assert!(lab.runtime.modules() <= 2, "{}", lab.runtime.modules());
        assert_eq!(lab.runtime.services().shared.spaces(), 1);
        old = Some((filter, new, id));
    }
    drop(old);
    assert_eq!((lab.runtime.modules(), lab.runtime.services().shared.spaces()), (0, 0));
}

#[test]
fn too_many_instances_are_refused_and_the_others_go_on() {
    let lab = Lab::new();
    let filter = lab.filter(&logging(&[]));
    let mut instances = Vec::new();
    let refused = loop {
        match filter.instantiate(Box::new(|| ())) {
            Ok(instance) => instances.push(instance),
            Err(refused) => break refused,
        }
        assert!(instances.len() <= INSTANCES as usize);
    };
    assert_eq!(instances.len(), INSTANCES as usize, "{refused}");
    instances[0].create_stream().unwrap();
    instances.pop();
    instance(&filter);
}

#[test]
fn filters_are_the_same_if_code_configuration_environment_and_limits_are() {
    let lab = Lab::new();
    let filter = lab.filter(&logging(&[]));
    let same = identity(&filter.hash(), filter.config());
    assert_eq!(same, filter.identity());
    let changes: [fn(&mut FilterConfig); 4] = [
        |config| config.configuration = b"x".to_vec(),
        |config| config.environment.push(("A".to_owned(), "1".to_owned())),
        |config| config.limits.memory_bytes += 1,
        |config| config.failure = crate::FailurePolicy::Open,
    ];
    for change in changes {
        let mut config = filter.config().clone();
        change(&mut config);
        assert_ne!(identity(&filter.hash(), &config), same);
    }
}
