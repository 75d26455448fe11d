-- kong.service.request. https://developer.konghq.com/gateway/pdk/reference/kong.service.request/
local core = ...
local host, check = core.host, core.check
local set_header = core.set_request_header
local lower = string.lower

local request = core.kong.service.request

local asking = core.set_of("rewrite", "access")
local asking_late = core.set_of("rewrite", "access", "balancer")
local balancing = core.set_of("balancer", "preread")

local function set(what, value)
  if not host.set_request(what, value) then error(what .. " cannot be part of a request: " .. ("%q"):format(value), 3) end
end

function request.enable_buffering()
  check(asking_late)
  core.tables().buffered = true
  host.hold_response()
end

function request.set_scheme(scheme)
  check(asking_late)
  if type(scheme) ~= "string" then error("scheme must be a string", 2) end
  if scheme ~= "http" and scheme ~= "https" then error("invalid scheme: " .. scheme, 2) end
  host.detour("https", scheme == "https" and 1 or 0)
end

function request.set_path(path)
  check(asking_late)
  if type(path) ~= "string" then error("path must be a string", 2) end
  if path:byte() ~= 47 then error("path must start with /", 2) end
  set("path", path)
end

function request.set_raw_query(query)
  check(asking)
  if type(query) ~= "string" then error("query must be a string", 2) end
  set("query", query)
end

function request.set_query(args)
  check(asking)
  if type(args) ~= "table" then error("args must be a table", 2) end
  local query, err = core.ordered_args(args)
  if not query then error(err, 2) end
  set("query", query)
end

function request.clear_query_arg(name)
  check(asking)
  if type(name) ~= "string" then error("query argument name must be a string", 2) end
  local query = host.request("query")
  if query ~= "" then set("query", (host.without_arg(query, name):gsub("+", "%%20"))) end
end

local methods = {}
for name in ("GET HEAD PUT POST DELETE OPTIONS MKCOL COPY MOVE PROPFIND PROPPATCH LOCK UNLOCK PATCH TRACE"):gmatch("%a+") do
  methods[name] = true
end
core.methods = methods

function request.set_method(method)
  check(asking)
  if type(method) ~= "string" then error("method must be a string", 2) end
  if not methods[method] then error("invalid method: " .. method, 2) end
  set("method", method)
end

function request.set_header(name, value)
  check(asking_late)
  local field = core.check_field(name, value)
  if name == ":authority" then
    local scheme = host.request("upstream_scheme")
    if scheme ~= "grpc" and scheme ~= "grpcs" then
      return nil, "cannot set :authority pseudo-header on non-grpc requests"
    end
    name = "Host"
  end
  core.set_field(set_header, core.REQUEST, name, field)
end

function request.add_header(name, value)
  check(asking)
  local field = core.check_field(name, value)
  -- There is one Host.
  core.change_field(core.REQUEST, lower(name) == "host" and "set" or "add", name, field)
end

function request.clear_header(name)
  check(asking)
  if type(name) ~= "string" then error("header must be a string", 2) end
  core.change_field(core.REQUEST, "set", name, nil)
end

function request.set_headers(headers)
  check(asking)
  core.check_fields(headers)
  for name, value in pairs(headers) do core.change_field(core.REQUEST, "set", name, value) end
end

function request.set_raw_body(body)
  check(asking_late)
  if type(body) ~= "string" then error("body must be a string", 2) end
  core.set_request_body(body)
end

-- Encoders by type ---------------------------------------------------------------------------------------------------------

local encoders = {}

encoders[core.FORM] = function(args, mime)
  local body, err = core.ordered_args(args)
  if not body then error(err, 3) end
  return body, mime
end

encoders[core.JSON] = function(args, mime)
  local body, err = core.encode(args)
  if not body then error(err, 3) end
  return body, mime
end

local function boundary_of(mime)
  return mime:match('boundary="([^"]*)"') or mime:match("boundary=(.*)$")
end

-- A boundary that no value has a line with.
local function free_boundary(args, boundary)
  local free = boundary
  repeat
    local taken = not free
    if taken then free, taken = tostring(math.random(1e10)), false end
    for _, value in pairs(args) do
      if tostring(value):find("\n--" .. free, 1, true) then taken = true end
    end
    if taken then free = nil end
  until free
  return free
end

encoders[core.PARTS] = function(args, mime)
  local names = {}
  for name, value in pairs(args) do
    if type(name) ~= "string" then
      error(("invalid key %q: got %s, expected string"):format(tostring(name), type(name)), 3)
    end
    local kind = type(value)
    if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error(("invalid value %q: got %s, expected string, number or boolean"):format(name, kind), 3)
    end
    names[#names + 1] = name
  end
  table.sort(names)
  local boundary = free_boundary(args, boundary_of(mime))
  local out = {}
  for i, name in ipairs(names) do
    out[i] = "--" .. boundary .. '\r\nContent-Disposition: form-data; name="' .. name .. '"\r\n\r\n'
      .. tostring(args[name]) .. "\r\n"
  end
  out[#out + 1] = "--" .. boundary .. "--\r\n"
  return table.concat(out), core.PARTS .. "; boundary=" .. boundary
end

function request.set_body(args, mime)
  check(asking)
  if type(args) ~= "table" then error("args must be a table", 2) end
  if mime and type(mime) ~= "string" then error("mime must be a string", 2) end
  mime = mime or core.kong.request.get_header("Content-Type")
  if not mime then
    return nil, "content type was neither explicitly given as an argument or received as a header"
  end
  local encode = encoders[mime:match("^[^;]*")]
  if not encode then error("unsupported content type " .. mime, 2) end
  local body, content_type = encode(args, mime)
  core.set_request_body(body)
  core.change_field(core.REQUEST, "set", "Content-Type", content_type)
  return true
end

-- Streams have no Lua phases.
function request.disable_tls()
  check(balancing)
end

function request.enable_tls()
  check(balancing)
end
