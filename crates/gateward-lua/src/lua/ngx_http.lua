-- The part of `ngx` that is about one request: variables, fields, bodies, answers.
-- https://github.com/openresty/lua-nginx-module
local core = ...
local host, state, slice, copy, ngx = core.host, core.state, core.slice, core.copy, core.ngx
local lower, sub, find = string.lower, string.sub, string.find
local band = bit.band
local known = host.request

-- Constants --------------------------------------------------------------------------------------------------------------

for name, status in pairs {
  CONTINUE = 100, SWITCHING_PROTOCOLS = 101, OK = 200, CREATED = 201, ACCEPTED = 202, NO_CONTENT = 204,
  PARTIAL_CONTENT = 206, SPECIAL_RESPONSE = 300, MOVED_PERMANENTLY = 301, MOVED_TEMPORARILY = 302, SEE_OTHER = 303,
  NOT_MODIFIED = 304, TEMPORARY_REDIRECT = 307, PERMANENT_REDIRECT = 308, BAD_REQUEST = 400, UNAUTHORIZED = 401,
  PAYMENT_REQUIRED = 402, FORBIDDEN = 403, NOT_FOUND = 404, NOT_ALLOWED = 405, NOT_ACCEPTABLE = 406,
  REQUEST_TIMEOUT = 408, CONFLICT = 409, GONE = 410, UPGRADE_REQUIRED = 426, TOO_MANY_REQUESTS = 429, CLOSE = 444,
  ILLEGAL = 451, INTERNAL_SERVER_ERROR = 500, NOT_IMPLEMENTED = 501, METHOD_NOT_IMPLEMENTED = 501, BAD_GATEWAY = 502,
  SERVICE_UNAVAILABLE = 503, GATEWAY_TIMEOUT = 504, VERSION_NOT_SUPPORTED = 505, INSUFFICIENT_STORAGE = 507,
} do
  ngx["HTTP_" .. name] = status
end
local method_of, bit_of = {}, 2
for name in ("GET HEAD POST PUT DELETE MKCOL COPY MOVE OPTIONS PROPFIND PROPPATCH LOCK UNLOCK PATCH TRACE"):gmatch("%a+") do
  ngx["HTTP_" .. name] = bit_of
  method_of[bit_of] = name
  bit_of = bit_of * 2
end
ngx.config = setmetatable({ debug = false, nginx_version = 1027001, ngx_lua_version = 10027 }, {
  __index = function(_, name) if name == "subsystem" then return host.wire("subsystem") or "http" end end,
})
function ngx.config.prefix() return "/usr/local/kong/" end
function ngx.config.nginx_configure() return "" end
ngx.is_subrequest = false
ngx.worker = {
  pid = function() return host.pid end, exiting = host.exiting, id = host.worker_id,
  count = function() return core.kong.configuration.nginx_worker_processes or 1 end, pids = function() return { host.pid } end,
}

local with_request = core.set_of("rewrite", "access", "response", "header_filter", "body_filter", "log")
local changing = core.set_of("rewrite", "access", "response", "header_filter")
local asking = core.set_of("rewrite", "access")
local preread = core.set_of("preread")
-- With a client that can be asked about, or told to go.
local with_client = bit.bor(with_request, core.set_of("preread", "certificate"))

local function check(set)
  if band(state.phase, set) == 0 then
    error("API disabled in the context of " .. (core.phase_name() or "a module being loaded"), 3)
  end
end

-- ngx.req ------------------------------------------------------------------------------------------------------------------

local req = {}
ngx.req = req

local raw_names = { __index = function() end }

local function fields(which, most, raw)
  if most ~= nil and type(most) ~= "number" then most = 100 end
  most = most or 100
  if raw then
    local list, more = host.fields(which, most == 0 and 1e6 or most, true)
    return setmetatable(list, raw_names), more and "truncated" or nil
  end
  return core.fields(which, most)
end

function req.get_headers(most, raw)
  check(with_request)
  return fields(core.REQUEST, most, raw)
end

function req.set_header(name, value)
  check(changing)
  if value ~= nil and type(value) ~= "table" then value = tostring(value) end
  core.change_field(core.REQUEST, "set", tostring(name), value)
end

function req.clear_header(name)
  check(changing)
  core.change_field(core.REQUEST, "set", tostring(name), nil)
end

local function args_of(text, most)
  local args, more = host.decode_args(text, most or 100)
  if more then return args, "truncated" end
  return args
end

function req.get_uri_args(most)
  check(with_request)
  return args_of(known("query"), most)
end

function req.set_uri_args(args)
  check(changing)
  if type(args) == "table" then args = ngx.encode_args(args) end
  if not host.set_request("query", tostring(args)) then error("the arguments cannot be part of a request", 2) end
end

-- The request body as a text; read before.
function req.read_body()
  check(asking)
  core.request_body()
end

function req.get_body_data(most)
  check(with_request)
  local body = host.body()
  if body == "" or body == nil then return nil end
  return most and most > 0 and sub(body, 1, most) or body
end

-- Bodies are never in files.
function req.get_body_file() return nil end

function req.discard_body() check(asking) end

function req.get_post_args(most)
  check(with_request)
  local body = host.body()
  if body == nil then
    return nil, core.tables().body_too_long and "request body in temp file not supported" or "no request body found"
  end
  return args_of(body, most)
end

function req.set_body_data(body)
  check(asking)
  core.set_request_body(tostring(body))
end

function req.get_method() check(with_request) return known("method") end

function req.set_method(id)
  check(changing)
  local name = method_of[id]
  if not name then error("unsupported HTTP method: " .. tostring(id), 2) end
  host.set_request("method", name)
end

function req.set_uri(uri, jump)
  check(asking)
  if type(uri) ~= "string" or uri == "" then error("attempt to use zero-length uri", 2) end
  if jump then error("set_uri with jump is not supported: requests are routed once", 2) end
  if not host.set_request("path", uri) then error("the uri cannot be part of a request", 2) end
end

function req.start_time() check(with_request) return known("started") / 1000 end
function req.http_version() check(with_request) return known("version") end
function req.is_internal() return false end

function req.raw_header(no_request_line)
  check(with_request)
  local lines = {}
  if not no_request_line then
    lines[1] = known("client_method") .. " " .. known("target") .. " " .. known("protocol") .. "\r\n"
  end
  for name, value in pairs((host.fields(core.REQUEST, 1e6, true))) do
    for _, each in ipairs(type(value) == "table" and value or { value }) do
      lines[#lines + 1] = name .. ": " .. each .. "\r\n"
    end
  end
  lines[#lines + 1] = "\r\n"
  return table.concat(lines)
end

-- ngx.resp, ngx.header, ngx.status -------------------------------------------------------------------------------------------

ngx.resp = {
  get_headers = function(most, raw)
    check(with_request)
    return fields(core.RESPONSE, most, raw)
  end,
  add_header = function(name, value)
    check(changing)
    core.change_field(core.RESPONSE, "add", tostring(name), value)
  end,
}

ngx.header = setmetatable({}, {
  __index = function(_, name)
    check(with_request)
    return core.fields(core.RESPONSE, 0)[tostring(name)]
  end,
  __newindex = function(_, name, value)
    check(changing)
    if type(value) == "table" and #value == 0 then value = nil end
    if value ~= nil and type(value) ~= "table" then value = tostring(value) end
    core.change_field(core.RESPONSE, "set", tostring(name), value)
  end,
})

local function status()
  local found = known("status")
  if found and found ~= 0 then return found end
  return core.tables().status or 0
end

-- Answers ------------------------------------------------------------------------------------------------------------------

local function flat(out, value)
  if type(value) == "table" then
    for _, each in ipairs(value) do flat(out, each) end
  else
    out[#out + 1] = value == core.null and "null" or tostring(value)
  end
end

-- What is printed is kept until the handler leaves with `ngx.exit` or returns, which makes an answer of it.
local function print(ending, ...)
  check(core.set_of("rewrite", "access", "response", "preread"))
  if band(state.phase, preread) ~= 0 then
    local out = {}
    for i = 1, select("#", ...) do flat(out, (select(i, ...))) end
    out[#out + 1] = ending
    -- A client without HTTP gets it as it is.
    local refusal = host.print(table.concat(out))
    if refusal then return nil, refusal end
    return 1
  end
  local own = core.tables()
  local out = own.printed or {}
  own.printed = out
  host.prints()
  for i = 1, select("#", ...) do flat(out, (select(i, ...))) end
  out[#out + 1] = ending
  return 1
end

-- Called when a handler returns without `ngx.exit`: whether it printed, which is then the answer.
function core.answer_printed()
  local own = core.tables()
  local printed = own.printed
  if not printed then return false end
  own.printed = nil
  host.answer(own.status or 200, table.concat(printed), nil)
  return true
end

function ngx.print(...) return print(nil, ...) end
function ngx.say(...) return print("\n", ...) end
function ngx.flush() return 1 end
function ngx.send_headers() return 1 end
function ngx.eof() return 1 end

function ngx.exit(code)
  if type(code) ~= "number" then error("bad argument #1 to 'exit' (number expected, got " .. type(code) .. ")", 2) end
  check(with_client)
  local own = core.tables()
  if band(state.phase, preread) ~= 0 then
    if code == ngx.ERROR then host.answer(500, nil, nil) elseif code >= 200 then host.answer(code, nil, nil) end
  elseif code == 444 and band(state.phase, core.waits) ~= 0 then
    -- nginx closes without an answer.
    host.break_off()
  elseif state.phase == core.phases.header_filter then
    -- It returns at once there, as in OpenResty, and what nginx has for the status takes the response's place.
    if code >= 400 then
      host.fail(code, core.message_of(code), nil)
      host.replace()
    elseif code >= 300 then
      host.answer(code, nil, nil)
      host.replace()
    elseif code >= 200 then
      host.set_status(code)
    end
    return
  elseif band(state.phase, core.waits) ~= 0 and code == ngx.ERROR then
    host.fail(500, core.message_of(500), nil)
  elseif band(state.phase, core.waits) ~= 0 and (code >= 200 or own.printed) then
    local answer = code >= 200 and code or own.status or 200
    if own.printed then
      host.answer(answer, table.concat(own.printed), nil)
    elseif answer >= 400 then
      host.fail(answer, core.message_of(answer), nil)
    else
      host.answer(answer, nil, nil)
    end
  end
  core.leave()
end

function ngx.redirect(uri, code)
  check(asking)
  code = code or 302
  if code ~= 301 and code ~= 302 and code ~= 303 and code ~= 307 and code ~= 308 then
    error("only ngx.HTTP_MOVED_TEMPORARILY, ngx.HTTP_MOVED_PERMANENTLY, ngx.HTTP_PERMANENT_REDIRECT, "
      .. "ngx.HTTP_SEE_OTHER, and ngx.HTTP_TEMPORARY_REDIRECT are allowed", 2)
  end
  host.answer(code, nil, { Location = tostring(uri) })
  core.leave()
end

function ngx.exec() error("ngx.exec is not supported: there are no locations", 2) end

-- Texts --------------------------------------------------------------------------------------------------------------------

local function text(value)
  if value == nil then return "" end
  return tostring(value)
end

function ngx.escape_uri(value, kind) return host.escape_uri(text(value), kind) end
function ngx.unescape_uri(value) return host.unescape_uri(text(value)) end
function ngx.encode_args(args)
  if type(args) ~= "table" then error("bad argument #1 to 'encode_args' (table expected)", 2) end
  local encoded, err = core.encode_args(args)
  if not encoded then error(err, 2) end
  return encoded
end
function ngx.decode_args(value, most) return args_of(text(value), most) end
function ngx.encode_base64(value, no_padding)
  local encoded = host.encode_base64(text(value))
  return no_padding and (encoded:gsub("=+$", "")) or encoded
end
function ngx.decode_base64(value)
  if type(value) ~= "string" then error("string argument only", 2) end
  return host.decode_base64(value)
end
function ngx.crc32_short(value) return host.crc32(text(value)) end
ngx.crc32_long = ngx.crc32_short
local function hex(bytes) return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end)) end
function ngx.md5_bin(value) return host.digest("md5", text(value)) end
function ngx.md5(value) return hex(ngx.md5_bin(value)) end
function ngx.sha1_bin(value) return host.digest("sha1", text(value)) end
function ngx.hmac_sha1(key, value) return host.hmac("sha1", text(key), text(value)) end

local quoted = { ["\0"] = "\\0", ["\b"] = "\\b", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t", ["\26"] = "\\Z",
  ["\\"] = "\\\\", ["'"] = "\\'", ['"'] = '\\"' }
function ngx.quote_sql_str(value) return "'" .. text(value):gsub("[%z\b\n\r\t\26\\'\"]", quoted) .. "'" end

-- Times --------------------------------------------------------------------------------------------------------------------

local date = os.date
local months = { Jan = 1, Feb = 2, Mar = 3, Apr = 4, May = 5, Jun = 6, Jul = 7, Aug = 8, Sep = 9, Oct = 10, Nov = 11, Dec = 12 }
local days = { "Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat" }
local names = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" }

function ngx.time() return math.floor(host.now()) end
function ngx.today() return date("%Y-%m-%d") end
function ngx.localtime() return date("%Y-%m-%d %H:%M:%S") end
function ngx.utctime() return date("!%Y-%m-%d %H:%M:%S") end
function ngx.update_time() end
local function in_words(seconds, between)
  local at = date("!*t", seconds)
  return ("%s, %02d%s%s%s%04d %02d:%02d:%02d GMT"):format(days[at.wday], at.day, between, names[at.month], between, at.year,
    at.hour, at.min, at.sec)
end
function ngx.http_time(seconds) return in_words(seconds, " ") end
function ngx.cookie_time(seconds) return in_words(seconds, "-") end
function ngx.parse_http_time(value)
  local day, month, year, hour, minute, second = text(value):match("^%a+, (%d%d) (%a%a%a) (%d%d%d%d) (%d%d):(%d%d):(%d%d) GMT$")
  if not months[month] then return nil end
  year, month = tonumber(year), months[month]
  -- Days since 1970 by the calendar that begins in March.
  local from_march = (month + 9) % 12
  if month <= 2 then year = year - 1 end
  local since = 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * from_march + 2) / 5) + tonumber(day) - 1 - 719468
  return since * 86400 + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
end

-- ngx.var --------------------------------------------------------------------------------------------------------------------

local function number_text(name)
  return function() local value = known(name) return value and ("%d"):format(value) end
end

-- A figure that is known in the log phase.
local function figure(name)
  return function() local value = host.figure(name) return value and ("%d"):format(value) end
end

local function field(name)
  return function() return core.kong.request.get_header(name) end
end

local function named(name) return function() return known(name) end end

-- Of the upstreams that were tried: who they were, and what it took to reach them.
local function tried()
  local addresses = host.tries()
  return addresses[1] and table.concat(addresses, ", ")
end
local function reached()
  local _, list = host.tries()
  for i, us in ipairs(list) do list[i] = ("%.3f"):format(us / 1e6) end
  return list[1] and table.concat(list, ", ")
end

-- Seconds, when the upstream was asked.
local function latency(more)
  return function()
    local us = host.figure("upstream_us")
    return us and ("%.3f"):format((us + (more and host.figure(more) or 0)) / 1e6)
  end
end

local function client_certificate()
  local chain = core.kong.client.tls.get_full_client_certificate_chain()
  return chain and chain:match("^.-%-%-%-%-%-END CERTIFICATE%-%-%-%-%-\n?")
end

-- Who the client says it is.
local function remote_user()
  local encoded = (core.kong.request.get_header("Authorization") or ""):match("^[Bb][Aa][Ss][Ii][Cc] +(%S+)$")
  local decoded = encoded and ngx.decode_base64(encoded)
  return decoded and decoded:match("^([^:]+):")
end

local variables = {
  request_method = named("client_method"), request_uri = named("target"), uri = named("path"), args = named("query"),
  query_string = named("query"), scheme = named("scheme"), host = named("host"), request_id = named("id"),
  kong_request_id = named("id"), server_protocol = named("protocol"), remote_addr = named("forwarded_ip"),
  realip_remote_addr = named("ip"), remote_port = number_text("peer_port"), realip_remote_port = number_text("peer_port"),
  server_port = number_text("port"), content_type = field("Content-Type"), content_length = field("Content-Length"),
  upstream_uri = named("upstream_path"), upstream_scheme = named("upstream_scheme"), upstream_host = named("upstream_host"),
  upstream_x_forwarded_prefix = named("forwarded_prefix"), upstream_x_forwarded_proto = named("forwarded_scheme"),
  upstream_x_forwarded_host = named("forwarded_host"), upstream_x_forwarded_port = number_text("forwarded_port"),
  upstream_x_forwarded_path = named("forwarded_path"), upstream_status = number_text("upstream_status"),
  ssl_server_name = named("sni"), ssl_protocol = named("tls_version"), ssl_cipher = named("tls_cipher"),
  ssl_client_s_dn = named("tls_subject"), ssl_client_i_dn = named("tls_issuer"), ssl_client_serial = named("tls_serial"),
  ssl_client_fingerprint = named("tls_fingerprint"), ssl_client_raw_cert = client_certificate,
  ssl_client_escaped_cert = function() local pem = client_certificate() return pem and ngx.escape_uri(pem) end,
  upstream_addr = tried, upstream_connect_time = reached, upstream_header_time = latency(),
  upstream_response_time = latency("receive_us"), binary_remote_addr = named("binary_forwarded_ip"),
  server_addr = named("local_ip"), connection_requests = number_text("number"),
  remote_user = remote_user, kong_proxy_mode = function() return "http" end, server_name = function() return "kong" end,
  ssl_client_verify = function() return core.tables().client_verify or known("tls_verify") end,
  https = function() return known("scheme") == "https" and "on" or "" end,
  is_args = function() return known("query") ~= "" and "?" or "" end,
  request = function() return known("client_method") .. " " .. known("target") .. " " .. known("protocol") end,
  status = function() return ("%03d"):format(status()) end,
  msec = function() return ("%.3f"):format(host.now()) end,
  time_iso8601 = function() return date("!%Y-%m-%dT%H:%M:%S+00:00") end,
  time_local = function() return date("!%d/%b/%Y:%H:%M:%S +0000") end,
  pid = function() return tostring(host.pid) end, hostname = function() return host.hostname end,
  request_body = function() return host.body() end,
  request_length = figure("request_bytes"),
  request_time = function()
    local us = host.figure("request_us")
    return ("%.3f"):format(us and us / 1e6 or math.max(0, host.now() - known("started") / 1000))
  end,
}

-- Of a stream (ngx_stream_core_module); `false`: it has none.
local function whole(name) return function() local value = host.wire(name) return value and ("%d"):format(value) end end
local on_wire = {
  protocol = function() return host.wire("protocol") == "udp" and "UDP" or "TCP" end,
  ssl_preread_server_name = function() return host.wire("sni") or "" end,
  status = whole("status"), bytes_received = whole("bytes_received"), bytes_sent = whole("bytes_sent"),
  upstream_bytes_received = whole("upstream_bytes_received"), upstream_bytes_sent = whole("upstream_bytes_sent"),
  session_time = function() local us = host.wire("session_us") return us and ("%.3f"):format(us / 1e6) end,
}
for name in ([[remote_addr remote_port realip_remote_addr realip_remote_port server_port ssl_server_name ssl_protocol ssl_cipher
  ssl_client_s_dn ssl_client_i_dn ssl_client_serial ssl_client_fingerprint ssl_client_verify msec time_iso8601 time_local pid
  hostname upstream_host server_addr binary_remote_addr]]):gmatch("%S+") do
  on_wire[name] = variables[name]
end

local function cookie(name)
  local header = host.joined(core.REQUEST, "Cookie")
  if not header then return nil end
  for key, value in header:gmatch("%s*([^=;]+)=([^;]*)") do
    if lower(key) == lower(name) then return value end
  end
end

local prefixes = {
  http_ = function(name) return host.joined(core.REQUEST, name) end,
  arg_ = function(name) return host.raw_arg(name) end,
  cookie_ = cookie,
  sent_http_ = function(name) return host.joined(core.RESPONSE, name) end,
  upstream_http_ = function(name) return host.came_from_upstream(name) and host.joined(core.RESPONSE, name) or nil end,
}
core.files.ngx_variables(core, variables, on_wire, prefixes)

local writable = {
  args = function(value) return host.set_request("query", value) end,
  upstream_uri = function(value) return host.set_request("raw_path", value) end,
  upstream_host = function(value) return host.set_request("host", value) end,
  upstream_scheme = function(value) host.detour("https", (value == "https" or value == "grpcs") and 1 or 0) return true end,
}

-- Both requests and streams have a log phase.
local function is_below_http()
  return band(state.phase, with_request) == 0 or (state.phase == core.phases.log and state.record == nil)
end

ngx.var = setmetatable({}, {
  __index = function(_, name)
    check(with_client)
    if type(name) ~= "string" then return nil end
    local below_http = is_below_http()
    local read = (below_http and on_wire or variables)[name]
    if read then return read() end
    if below_http then
      local own = core.tables().variables
      return own and own[name]
    end
    for prefix, find_by in pairs(prefixes) do
      if sub(name, 1, #prefix) == prefix then return find_by(sub(name, #prefix + 1)) end
    end
    local own = core.tables().variables
    return own and own[name]
  end,
  __newindex = function(_, name, value)
    check(with_client)
    local write = band(state.phase, with_request) ~= 0 and writable[name]
    if write then
      if band(state.phase, asking) == 0 or not write(text(value)) then
        error('variable "' .. name .. '" cannot be set to this, or not any more', 2)
      end
    elseif variables[name] then
      error('variable "' .. name .. '" not changeable', 2)
    else
      -- What nginx would want declared is as good here as what Kong declares.
      local own = core.tables()
      own.variables = own.variables or {}
      own.variables[name] = value ~= nil and tostring(value) or nil
    end
  end,
})

-- Values that are looked up whenever they are used ---------------------------------------------------------------------------

local before = getmetatable(ngx)
setmetatable(ngx, {
  __index = function(self, name)
    if name == "status" then check(with_request) return status() end
    if name == "headers_sent" then return state.phase == core.phases.body_filter or state.phase == core.phases.log end
    return before.__index(self, name)
  end,
  __newindex = function(self, name, value)
    if name == "status" then
      check(changing)
      return core.set_status(tonumber(value))
    end
    return before.__newindex(self, name, value)
  end,
})
