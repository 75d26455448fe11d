-- kong.request. https://developer.konghq.com/gateway/pdk/reference/kong.request/
local core = ...
local host, state, slice, copy, check = core.host, core.state, core.slice, core.copy, core.check
local header, text = core.request_header, core.request_text
local known = host.request

local request = {}
core.kong.request = request

local everywhere = core.set_of("rewrite", "access", "response", "header_filter", "body_filter", "log", "error",
  "admin_api", "cluster_listener")
local before_content = core.set_of("rewrite", "access", "response", "error", "admin_api")
local init_worker = core.set_of("init_worker")

local function getter(name)
  return function()
    check(everywhere)
    return known(name)
  end
end

request.get_scheme = getter("scheme")
request.get_host = getter("host")
request.get_forwarded_scheme = getter("forwarded_scheme")
request.get_forwarded_host = getter("forwarded_host")
request.get_forwarded_port = getter("forwarded_port")
request.get_forwarded_path = getter("forwarded_path")
request.get_forwarded_prefix = getter("forwarded_prefix")
request.get_http_version = getter("version")
request.get_path_with_query = getter("target")
request.get_start_time = getter("started")

function request.get_port()
  core.check_not(init_worker)
  return known("port")
end

function request.get_method()
  check(everywhere)
  text(state, 0, slice)
  return copy(slice[0].data, slice[0].bytes)
end

function request.get_path()
  check(everywhere)
  text(state, 1, slice)
  if slice[0].bytes == 0 then return known("path") end
  return copy(slice[0].data, slice[0].bytes)
end

function request.get_raw_path()
  check(everywhere)
  text(state, 2, slice)
  return copy(slice[0].data, slice[0].bytes)
end

function request.get_raw_query()
  check(everywhere)
  text(state, 3, slice)
  return copy(slice[0].data, slice[0].bytes)
end

local function query(most)
  text(state, 3, slice)
  return host.decode_args(copy(slice[0].data, slice[0].bytes), most)
end

function request.get_query(max_args)
  check(everywhere)
  local args, more = query(core.check_most("max_args", max_args, 100))
  if more then return args, "truncated" end
  return args
end

function request.get_query_arg(name)
  check(everywhere)
  if type(name) ~= "string" then error("query argument name must be a string", 2) end
  local value = query(100)[name]
  if type(value) == "table" then return value[1] end
  return value
end

function request.get_header(name)
  check(everywhere)
  if type(name) ~= "string" then error("header name must be a string", 2) end
  if header(state, name, #name, slice) then return copy(slice[0].data, slice[0].bytes) end
end

function request.get_headers(max_headers)
  check(everywhere)
  return core.fields(core.REQUEST, core.check_most("max_headers", max_headers, 100))
end

function request.get_raw_body()
  check(before_content)
  return core.request_body()
end

function request.get_body(mimetype, max_args)
  check(before_content)
  return core.take_apart(mimetype or request.get_header("Content-Type"), max_args, core.request_body)
end

function request.get_uri_captures()
  check(everywhere)
  local unnamed, named = host.captures()
  return { unnamed = unnamed, named = named }
end
