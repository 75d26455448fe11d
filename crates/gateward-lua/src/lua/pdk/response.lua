-- kong.response. https://developer.konghq.com/gateway/pdk/reference/kong.response/
local core = ...
local host, state, check = core.host, core.state, core.check

local response = {}
core.kong.response = response

local writable = core.set_of("rewrite", "access", "response", "header_filter")
local answers = core.set_of("rewrite", "access", "response", "preread")

function response.set_header(name, value)
  check(writable)
  core.check_name(name)
  core.set_field(core.set_response_header, name, core.check_value(name, value))
end

function response.exit(status, body, headers)
  check(answers)
  if type(status) ~= "number" then error("code must be a number", 2) end
  if status < 100 or status > 599 then error("code must be a number between 100 and 599", 2) end
  host.answer(status, body, headers)
  core.leave()
end
