// The filter of README.md in AssemblyScript.

// @ts-ignore: decorator
@external("env", "proxy_get_header_map_value")
declare function getField(map: u32, name: usize, nameLen: usize, value: usize, valueLen: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_replace_header_map_value")
declare function replaceField(map: u32, name: usize, nameLen: usize, value: usize, valueLen: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_get_buffer_bytes")
declare function getBytes(buffer: u32, start: u32, most: u32, data: usize, len: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function setBytes(buffer: u32, start: u32, size: u32, data: usize, len: usize): u32;
// @ts-ignore: decorator
@external("env", "proxy_send_local_response")
declare function respond(
  status: u32, details: usize, detailsLen: usize, body: usize, bodyLen: usize, fields: usize, fieldsLen: usize, grpc: i32,
): u32;
// @ts-ignore: decorator
@external("env", "proxy_log")
declare function log(level: u32, text: usize, len: usize): u32;

const OK: u32 = 0;
const CONTINUE: u32 = 0;
const PAUSE: u32 = 1;
const REQUEST_HEADERS: u32 = 0;
const RESPONSE_HEADERS: u32 = 2;
const RESPONSE_BODY: u32 = 1;
const CONFIGURATION: u32 = 7;
const CRITICAL: u32 = 5;

let configured: string = "";
let requests: i32 = 0;

// Where the host writes an address and a length.
const out: usize = memory.data(8);

// The text at the address that the host wrote; the host got that memory from `malloc`.
function taken(): string {
  const data = <usize>load<u32>(out);
  const len = <usize>load<u32>(out, 4);
  if (data == 0) return "";
  const text = String.UTF8.decodeUnsafe(data, len);
  heap.free(data);
  return text;
}

function field(map: u32, name: string): string {
  const bytes = String.UTF8.encode(name);
  const status = getField(map, changetype<usize>(bytes), bytes.byteLength, out, out + 4);
  return status == OK ? taken() : "";
}

function set(map: u32, name: string, value: string): void {
  const bytes = String.UTF8.encode(name);
  const text = String.UTF8.encode(value);
  replaceField(map, changetype<usize>(bytes), bytes.byteLength, changetype<usize>(text), text.byteLength);
}

// What asserts and failed allocations call.
export function abort(message: string, file: string, line: u32, column: u32): void {
  const text = String.UTF8.encode(message + " at line " + line.toString());
  log(CRITICAL, changetype<usize>(text), text.byteLength);
  unreachable();
}

export function proxy_abi_version_0_2_1(): void {}

export function malloc(len: u32): usize {
  return heap.alloc(len);
}

export function proxy_on_configure(context: u32, len: u32): u32 {
  if (len == 0 || getBytes(CONFIGURATION, 0, len, out, out + 4) != OK) return 0;
  configured = taken();
  return 1;
}

export function proxy_on_request_headers(context: u32, count: u32, end: u32): u32 {
  requests += 1;
  const path = field(REQUEST_HEADERS, ":path");
  if (path == "/forbidden") {
    const body = String.UTF8.encode("not here\n");
    respond(403, 0, 0, changetype<usize>(body), body.byteLength, 0, 0, -1);
    return PAUSE;
  }
  set(REQUEST_HEADERS, "x-asked-path", path);
  set(REQUEST_HEADERS, "x-agent", field(REQUEST_HEADERS, "user-agent").toLowerCase());
  return CONTINUE;
}

export function proxy_on_response_headers(context: u32, count: u32, end: u32): u32 {
  set(RESPONSE_HEADERS, "x-filtered", configured);
  set(RESPONSE_HEADERS, "x-count", requests.toString());
  return CONTINUE;
}

export function proxy_on_response_body(context: u32, len: u32, end: u32): u32 {
  if (end) {
    const mark = String.UTF8.encode("!");
    setBytes(RESPONSE_BODY, len, 0, changetype<usize>(mark), mark.byteLength);
  }
  return CONTINUE;
}
