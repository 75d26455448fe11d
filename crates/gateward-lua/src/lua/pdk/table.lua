-- kong.table. https://developer.konghq.com/gateway/pdk/reference/kong.table/
local core = ...

local clear = require "table.clear"

core.kong.table = {
  new = require "table.new",
  clear = function(given)
    if type(given) ~= "table" then error("bad argument #1 to 'clear' (table expected, got " .. type(given) .. ")", 2) end
    return clear(given)
  end,
}

function core.kong.table.merge(first, second)
  local merged = {}
  for _, source in ipairs({ first or {}, second or {} }) do
    if type(source) ~= "table" then error("tables are merged, not a " .. type(source), 2) end
    for key, value in pairs(source) do merged[key] = value end
  end
  return merged
end
