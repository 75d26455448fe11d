-- kong.request. https://developer.konghq.com/gateway/pdk/reference/kong.request/
local core = ...
local state, slice, copy, check = core.state, core.slice, core.copy, core.check
local header, text = core.request_header, core.request_text

local request = {}
core.kong.request = request

local everywhere =
  core.set_of("certificate", "rewrite", "access", "response", "header_filter", "body_filter", "log")

function request.get_header(name)
  check(everywhere)
  core.check_name(name)
  if header(state, name, #name, slice) then return copy(slice[0].data, slice[0].bytes) end
end

function request.get_method()
  check(everywhere)
  text(state, 0, slice)
  return copy(slice[0].data, slice[0].bytes)
end

function request.get_path()
  check(everywhere)
  text(state, 1, slice)
  return copy(slice[0].data, slice[0].bytes)
end
