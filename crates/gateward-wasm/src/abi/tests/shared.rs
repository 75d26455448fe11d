//! Shared data and queues.

use super::{RETURN, Rig, row};
use crate::shared::Listener;
use crate::types::Status;

const OUT: [u32; 2] = [RETURN, RETURN + 4];

#[test]
fn data_is_compared_and_swapped() {
    let mut rig = Rig::new();
    let (key, one, two) = (rig.put(b"key"), rig.put(b"1"), rig.put(b"2"));
    rig.check("proxy_get_shared_data", &row(&[&key, &OUT, &[RETURN + 8]]), Status::NotFound);
    rig.check("proxy_set_shared_data", &row(&[&key, &one, &[0]]), Status::Ok);
    rig.check("proxy_get_shared_data", &row(&[&key, &OUT, &[RETURN + 8]]), Status::Ok);
    let cas = rig.number(RETURN + 8);
    assert_eq!((rig.given(), cas != 0), (b"1".to_vec(), true));
    rig.check("proxy_set_shared_data", &row(&[&key, &two, &[cas + 1]]), Status::CasMismatch);
    rig.check("proxy_set_shared_data", &row(&[&key, &two, &[cas]]), Status::Ok);
    assert_eq!(&*rig.services.shared.space("rig").value(b"key").unwrap().0, b"2");
}

#[test]
fn items_go_through_a_queue() {
    let mut rig = Rig::new();
    let (own, other, name, item) = (rig.put(b"rig"), rig.put(b"other"), rig.put(b"queue"), rig.put(b"item"));
    rig.check("proxy_resolve_shared_queue", &row(&[&own, &name, &[RETURN]]), Status::NotFound);
    rig.check("proxy_register_shared_queue", &row(&[&name, &[RETURN]]), Status::Ok);
    let id = rig.number(RETURN);
    for vm_id in [own, [0, 0]] {
        rig.check("proxy_resolve_shared_queue", &row(&[&vm_id, &name, &[RETURN]]), Status::Ok);
        assert_eq!(rig.number(RETURN), id);
    }
    rig.check("proxy_resolve_shared_queue", &row(&[&other, &name, &[RETURN]]), Status::NotFound);
    rig.check("proxy_dequeue_shared_queue", &row(&[&[id], &OUT]), Status::Empty);
    rig.check("proxy_enqueue_shared_queue", &row(&[&[id], &item]), Status::Ok);
    rig.check("proxy_dequeue_shared_queue", &row(&[&[id], &OUT]), Status::Ok);
    assert_eq!(rig.given(), b"item");
    rig.check("proxy_dequeue_shared_queue", &row(&[&[999], &OUT]), Status::NotFound);
    rig.check("proxy_enqueue_shared_queue", &row(&[&[999], &item]), Status::NotFound);
}

#[test]
fn a_queue_of_another_vm_is_reached_by_its_vm_id() {
    let mut rig = Rig::new();
    let space = rig.services.shared.space("other");
    let listener = Listener::new(Box::new(|| ()));
    space.listen(&listener);
    let id = space.register(b"queue", &listener).unwrap();
    let (other, name, item) = (rig.put(b"other"), rig.put(b"queue"), rig.put(b"item"));
    rig.check("proxy_resolve_shared_queue", &row(&[&other, &name, &[RETURN]]), Status::Ok);
    assert_eq!(rig.number(RETURN), id);
    rig.check("proxy_enqueue_shared_queue", &row(&[&[id], &item]), Status::Ok);
    assert_eq!((listener.take(), &*space.dequeue(id).unwrap()), (vec![id], &b"item"[..]));
}
