-- kong.log. https://developer.konghq.com/gateway/pdk/reference/kong.log/
local core = ...
local host = core.host

local levels = { emerg = 1, alert = 2, crit = 3, err = 4, warn = 5, notice = 6, info = 7, debug = 8 }
local log = {}
for name, level in pairs(levels) do
  log[name] = function(...)
    local parts = { n = select("#", ...), ... }
    for i = 1, parts.n do parts[i] = tostring(parts[i]) end
    host.log(level, table.concat(parts))
  end
end
local over = core.set_of("log")

-- The record that log plugins send.
function log.serialize()
  core.check(over)
  return host.record()
end

core.kong.log = setmetatable(log, { __call = function(self, ...) return self.notice(...) end })
