-- kong.service.response. https://developer.konghq.com/gateway/pdk/reference/kong.service.response/
local core = ...
local host, state, slice, copy, check = core.host, core.state, core.slice, core.copy, core.check
local header = core.response_header

local response = core.kong.service.response
local answered = core.set_of("response", "header_filter", "body_filter", "log")
local in_response = core.set_of("response")

function response.get_status()
  check(answered)
  return host.request("upstream_status")
end

function response.get_headers(max_headers)
  check(answered)
  local fields, more = core.fields(core.RESPONSE, core.check_most("max_headers", max_headers, 100))
  for name in pairs(fields) do
    if not host.came_from_upstream(name) then fields[name] = nil end
  end
  return fields, more
end

function response.get_header(name)
  check(answered)
  if type(name) ~= "string" then error("name must be a string", 2) end
  if host.came_from_upstream(name) and header(state, name, #name, slice) then
    return copy(slice[0].data, slice[0].bytes)
  end
end

local function check_held()
  if not core.tables().buffered and bit.band(state.phase, in_response) == 0 then
    error("service body is only available with buffered proxying "
      .. "(see: kong.service.request.enable_buffering function)", 3)
  end
end

function response.get_raw_body()
  check(answered)
  check_held()
  return core.held_response()
end

function response.get_body(mimetype, max_args)
  check(answered)
  check_held()
  return core.take_apart(mimetype or response.get_header("Content-Type"), max_args, core.held_response)
end

-- The body as the upstream sent it.
function core.held_response()
  return host.response_body() or ""
end
