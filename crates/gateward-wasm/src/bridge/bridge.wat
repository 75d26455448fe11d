;; Stands between the host and a filter. A way from the host into a filter costs as much as many calls among modules, so what
;; the host would do in several ways in is done here in one. `bridge.wasm` is this text, assembled; a test compares them.
(module
  (type $allocate (func (param i32) (result i32)))
  (type $create (func (param i32 i32)))
  (type $headers (func (param i32 i32 i32) (result i32)))
  (type $ask (func (param i32) (result i32)))
  (type $tell (func (param i32)))

  ;; Map, name and where the answer goes; the value's length, or no more than zero: a status with its sign turned.
  (import "host" "find_value" (func $find_value (param i32 i32 i32 i32 i32) (result i32)))
  ;; Memory, its length and where the answer goes; a status.
  (import "host" "hand_over" (func $hand_over (param i32 i32 i32 i32) (result i32)))
  ;; A context and which callback it is called back for next.
  (import "host" "next" (func $next (param i32 i32)))

  ;; The filter's: allocate, on_context_create, on_request_headers, on_done, on_log, on_delete.
  (table (export "callbacks") 6 funcref)
  ;; Whether the filter's allocator cannot be called: it is not there yet (1), or at work (2).
  (global $busy (export "busy") (mut i32) (i32.const 1))

  (func (export "proxy_get_header_map_value")
    (param $map i32) (param $name i32) (param $name_len i32) (param $data i32) (param $len i32) (result i32)
    (local $length i32)
    (local $memory i32)
    ;; INTERNAL_FAILURE: what was found for the value under way must stay.
    (if (i32.eq (global.get $busy) (i32.const 2)) (then (return (i32.const 10))))
    (local.tee $length
      (call $find_value (local.get $map) (local.get $name) (local.get $name_len) (local.get $data) (local.get $len)))
    (if (i32.le_s (i32.const 0))
      (then (return (i32.sub (i32.const 0) (local.get $length)))))
    (if (global.get $busy) (then (return (i32.const 10))))
    (global.set $busy (i32.const 2))
    (local.set $memory (call_indirect (type $allocate) (local.get $length) (i32.const 0)))
    (global.set $busy (i32.const 0))
    ;; INVALID_MEMORY_ACCESS
    (if (i32.eqz (local.get $memory)) (then (return (i32.const 6))))
    (call $hand_over (local.get $memory) (local.get $length) (local.get $data) (local.get $len)))

  (func (export "begin") (param $context i32) (param $count i32) (param $end i32) (result i32)
    (call_indirect (type $create) (local.get $context) (i32.const 1) (i32.const 1))
    (call $next (local.get $context) (i32.const 2))
    (call_indirect (type $headers) (local.get $context) (local.get $count) (local.get $end) (i32.const 2)))

  ;; Whether the filter is done.
  (func (export "end") (param $context i32) (result i32)
    (if (i32.eqz (call_indirect (type $ask) (local.get $context) (i32.const 3)))
      (then (return (i32.const 0))))
    (call $next (local.get $context) (i32.const 4))
    (call_indirect (type $tell) (local.get $context) (i32.const 4))
    (call $next (local.get $context) (i32.const 5))
    (call_indirect (type $tell) (local.get $context) (i32.const 5))
    (i32.const 1)))
