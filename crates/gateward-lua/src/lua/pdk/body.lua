-- The request body, received when a plugin asks for it; leaving a handler.
local core = ...
local host, state = core.host, core.state

local receiving = core.set_of("rewrite", "access")
local too_long = "request body did not fit into client body buffer, consider raising 'client_body_buffer_size'"
  .. " (--plugin-body-size)"

-- The body as a text, empty if there is none; `nil` and an error when the gateway cannot hold it.
function core.request_body()
  local body = host.body()
  if body then return body end
  local own = core.tables()
  if own.body_too_long then return nil, too_long end
  if bit.band(state.phase, receiving) == 0 then
    return nil, "the request body was not kept: it must be read in the access phase"
  end
  if not core.wait(host.read_body()) then
    own.body_too_long = true
    return nil, too_long
  end
  return host.body() or ""
end

-- Send `body` upstream. What the client sends is received first: it must not stay in the way.
function core.set_request_body(body)
  local held, err = core.request_body()
  if not held then error(err, 3) end
  host.set_body(body)
end

-- Set the status of the response; before there is one, of an answer that the plugin itself makes.
function core.set_status(status)
  if not host.set_status(status) then core.tables().status = status end
end

-- Leave the handler for good; what to answer was said before.
function core.leave()
  host.leave()
  if core.may_wait() then coroutine.yield(core.LEAVE, core.WAIT) end
  error("a handler that left goes on", 0)
end
