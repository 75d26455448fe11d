-- kong.response. https://developer.konghq.com/gateway/pdk/reference/kong.response/
local core = ...
local host, state, slice, copy, check = core.host, core.state, core.slice, core.copy, core.check
local header, set_header = core.response_header, core.set_response_header
local lower = string.lower

local response = {}
core.kong.response = response

local readable = core.set_of("response", "header_filter", "body_filter", "log", "error", "admin_api")
local writable = core.set_of("rewrite", "access", "response", "header_filter", "error", "admin_api")
local exiting = core.set_of("preread", "rewrite", "access", "response", "header_filter", "error", "admin_api")
local preread = core.set_of("preread")
local body_filter = core.set_of("body_filter")
local band = bit.band

function response.get_status()
  check(readable)
  return host.request("status")
end

function response.get_header(name)
  check(readable)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  if header(state, name, #name, slice) then return copy(slice[0].data, slice[0].bytes) end
end

function response.get_headers(max_headers)
  check(readable)
  return core.fields(core.RESPONSE, core.check_most("max_headers", max_headers, 100))
end

function response.get_source()
  check(readable)
  return host.request("source")
end

local function check_status(status, least)
  if type(status) ~= "number" then error("code must be a number", 3) end
  if status < least or status > 599 then error("code must be a number between " .. least .. " and 599", 3) end
end

function response.set_status(status)
  check(writable)
  check_status(status, 100)
  core.set_status(status)
end

-- The gateway says itself how a body is delimited.
local function is_framing(name)
  if #name ~= 17 then return false end
  local known = lower(name)
  if known ~= "transfer-encoding" and known ~= "transfer_encoding" then return false end
  core.kong.log.warn("manually setting Transfer-Encoding. Ignored.")
  return true
end

function response.set_header(name, value)
  check(writable)
  local field = core.check_field(name, value)
  if not is_framing(name) then core.set_field(set_header, core.RESPONSE, name, field) end
end

function response.add_header(name, value)
  check(writable)
  core.change_field(core.RESPONSE, "add", name, core.check_field(name, value))
end

function response.clear_header(name)
  check(writable)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  core.change_field(core.RESPONSE, "set", name, nil)
end

function response.set_headers(headers)
  check(writable)
  core.check_fields(headers)
  for name, value in pairs(headers) do
    if not is_framing(name) then core.change_field(core.RESPONSE, "set", name, value) end
  end
end

-- The whole body with its last piece; until then the pieces are kept back.
function response.get_raw_body()
  check(body_filter)
  local own = core.tables()
  local piece, last = host.chunk(), state.last == 1
  local held = own.body
  if last then
    own.body = nil
    if not held then return piece end
    held[#held + 1] = piece
    local body = table.concat(held)
    host.set_chunk(body)
    return body
  end
  if piece ~= "" then
    held = held or {}
    held[#held + 1] = piece
    own.body = held
    host.set_chunk(nil)
  end
  return nil
end

-- Nothing of the body follows what is set here.
function response.set_raw_body(body)
  check(body_filter)
  if type(body) ~= "string" then error("body must be a string", 2) end
  core.tables().body = nil
  host.set_chunk(body)
  host.end_body()
end

local function check_headers(headers)
  if headers == nil then return end
  if type(headers) ~= "table" then error("headers must be a nil or table", 3) end
  core.check_fields(headers)
  local kept = {}
  for name, value in pairs(headers) do
    if not is_framing(name) then kept[name:gsub("_", "-")] = value end
  end
  return kept
end

-- What was said with `answer` or `fail` is the answer. In header_filter `ngx.exit` returns at once, so that Kong's handler goes
-- on, and the plugins after it as well: what is said last counts.
local function leave()
  if state.phase == core.phases.header_filter then return host.replace() end
  core.leave()
end

-- The headers, with this content type if they name none.
local function with_content_type(headers, content_type)
  headers = headers or {}
  for name in pairs(headers) do
    if name:lower() == "content-type" then return headers end
  end
  headers["Content-Type"] = content_type
  return headers
end

-- A stream has no headers and no messages: what is no error is sent as it is, then the connection ends.
local function exit_stream(status, body)
  if type(body) == "table" then
    local json, err = core.encode(body)
    if not json then error("body encoding failed while flushing response: " .. err, 2) end
    body = json
  end
  if body and status < 400 then
    local refusal = host.print(body)
    if refusal then error("the body cannot be sent: " .. refusal, 2) end
  elseif body then
    host.log(core.ngx.ERR, core.log_origin(2) .. "unable to proxy stream connection, status: " .. status .. ", err: " .. body)
  end
  host.answer(status, nil, nil)
  core.leave()
end

function response.exit(status, body, headers)
  check(exiting)
  check_status(status, 100)
  if body ~= nil and type(body) ~= "string" and type(body) ~= "table" then
    error("body must be a nil, string or table", 2)
  end
  if band(state.phase, preread) ~= 0 then return exit_stream(status, body) end
  headers = check_headers(headers)
  if type(body) == "table" then
    local json, err = core.encode(body)
    if not json then error("body encoding failed while flushing response: " .. err, 2) end
    body, headers = json, with_content_type(headers, "application/json; charset=utf-8")
  end
  host.answer(status, body, headers)
  return leave()
end

local messages = {
  [400] = "Bad request", [401] = "Unauthorized", [402] = "Payment required", [403] = "Forbidden", [404] = "Not found",
  [405] = "Method not allowed", [406] = "Not acceptable", [407] = "Proxy authentication required",
  [408] = "Request timeout", [409] = "Conflict", [410] = "Gone", [411] = "Length required",
  [412] = "Precondition failed", [413] = "Payload too large", [414] = "URI too long", [415] = "Unsupported media type",
  [416] = "Range not satisfiable", [417] = "Expectation failed", [418] = "I'm a teapot", [421] = "Misdirected request",
  [422] = "Unprocessable entity", [423] = "Locked", [424] = "Failed dependency", [425] = "Too early",
  [426] = "Upgrade required", [428] = "Precondition required", [429] = "Too many requests",
  [431] = "Request header fields too large", [451] = "Unavailable for legal reasons",
  [494] = "Request header or cookie too large", [500] = "An unexpected error occurred", [501] = "Not implemented",
  [502] = "An invalid response was received from the upstream server",
  [503] = "The upstream server is currently unavailable", [504] = "The upstream server is timing out",
  [505] = "HTTP version not supported", [506] = "Variant also negotiates", [507] = "Insufficient storage",
  [508] = "Loop detected", [510] = "Not extended", [511] = "Network authentication required",
}

-- Kong's message for a status.
function core.message_of(status)
  return messages[status] or ("The upstream server responded with " .. status)
end

function response.error(status, message, headers)
  check(writable)
  check_status(status, 400)
  if type(message) == "table" then
    local json, err = core.encode(message)
    if not json then error("could not JSON encode the error message: " .. err, 2) end
    message = json
  elseif message ~= nil and type(message) ~= "string" then
    error("message must be a nil, a string or a table", 2)
  end
  host.fail(status, message or core.message_of(status), check_headers(headers))
  return leave()
end
