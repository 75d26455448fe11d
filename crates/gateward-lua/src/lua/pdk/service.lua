-- kong.service and its request and response. https://developer.konghq.com/gateway/pdk/reference/kong.service.request/
local core = ...
local check = core.check

local service = { request = {}, response = {} }
core.kong.service = service

local asking = core.set_of("rewrite", "access")

function service.request.set_header(name, value)
  check(asking)
  core.check_name(name)
  core.set_field(core.set_request_header, name, core.check_value(name, value))
end
