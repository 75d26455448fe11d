// The filter of README.md in AssemblyScript with its SDK, the npm package `@solo-io/proxy-runtime`.

export * from "@solo-io/proxy-runtime/proxy";
import {
  Context, FilterDataStatusValues, FilterHeadersStatusValues, GrpcStatusValues, Headers, RootContext,
  registerRootContext, send_local_response, stream_context,
} from "@solo-io/proxy-runtime";

// The SDK has no function for it.
// @ts-ignore: decorator
@external("env", "proxy_set_buffer_bytes")
declare function setBytes(buffer: u32, start: u32, size: u32, data: usize, len: usize): u32;

const RESPONSE_BODY: u32 = 1;

class Root extends RootContext {
  requests: i32 = 0;

  onConfigure(size: u32): bool {
    return size > 0 && super.onConfigure(size);
  }

  createContext(id: u32): Context {
    return new Request(id, this);
  }
}

class Request extends Context {
  root: Root;

  constructor(id: u32, root: Root) {
    super(id, root);
    this.root = root;
  }

  onRequestHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    this.root.requests += 1;
    const fields = stream_context.headers.request;
    const path = fields.get(":path");
    if (path == "/forbidden") {
      const none: Headers = [];
      send_local_response(403, "", String.UTF8.encode("not here\n"), none, GrpcStatusValues.Unknown);
      return FilterHeadersStatusValues.StopIteration;
    }
    fields.replace("x-asked-path", path);
    fields.replace("x-agent", fields.get("user-agent").toLowerCase());
    return FilterHeadersStatusValues.Continue;
  }

  onResponseHeaders(count: u32, end: bool): FilterHeadersStatusValues {
    const fields = stream_context.headers.response;
    fields.replace("x-filtered", this.root.getConfiguration());
    fields.replace("x-count", this.root.requests.toString());
    return FilterHeadersStatusValues.Continue;
  }

  onResponseBody(len: usize, end: bool): FilterDataStatusValues {
    if (end) {
      const mark = String.UTF8.encode("!");
      setBytes(RESPONSE_BODY, len as u32, 0, changetype<usize>(mark), mark.byteLength);
    }
    return FilterDataStatusValues.Continue;
  }
}

registerRootContext((id: u32) => { return new Root(id); }, "assemblyscript-sdk");
