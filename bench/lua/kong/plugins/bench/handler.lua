-- What measurements run in the gateway: three header reads and two writes for each request. nginx does the same in
-- xtask/src/bench/configs.rs.
local Bench = { PRIORITY = 5, VERSION = "1.0.0" }

function Bench:access(conf)
  local agent = kong.request.get_header("User-Agent") or ""
  local accept = kong.request.get_header("Accept") or ""
  local kind = kong.request.get_header("Content-Type") or ""
  local device = #agent > 3 and accept ~= kind and "mobile" or "other"
  kong.service.request.set_header("X-Device", device)
end

function Bench:header_filter(conf)
  kong.response.set_header("X-Kind", conf.kind)
end

return Bench
