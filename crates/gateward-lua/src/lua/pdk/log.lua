-- kong.log. https://developer.konghq.com/gateway/pdk/reference/kong.log/
local core = ...
local host, state, check = core.host, core.state, core.check
local getinfo = debug.getinfo

local levels = { emerg = 1, alert = 2, crit = 3, err = 4, warn = 5, notice = 6, info = 7, debug = 8 }
local log = {}

-- `[kong] handler.lua:12 [the-plugin] `, as Kong writes it. `level` is where the plugin's line is, seen from the caller.
local function origin(level)
  local line = getinfo(level + 1, "Sl")
  local where = line and line.currentline > 0 and line.short_src:match("[^/]*$") .. ":" .. line.currentline .. " " or ""
  local plugin = core.plugins[state.instance]
  return "[kong] " .. where .. (plugin and "[" .. plugin.name .. "] " or "")
end

core.log_origin = origin

local function join(...)
  local parts = { n = select("#", ...), ... }
  for i = 1, parts.n do parts[i] = tostring(parts[i]) end
  return table.concat(parts, "", 1, parts.n)
end

for name, level in pairs(levels) do
  log[name] = function(...)
    if host.logs(level) then host.log(level, origin(2) .. join(...)) end
  end
end

-- inspect ------------------------------------------------------------------------------------------------------------------

local shown = 64 * 1024

local function by_name(first, second)
  local one, other = type(first), type(second)
  if one == other and (one == "number" or one == "string") then return first < second end
  return one < other
end

-- A value in words, tables line by line, to a depth of 16.
local function words(value, indent, seen, out)
  if out.bytes > shown then return end
  local text
  if type(value) == "string" then
    text = ("%q"):format(value)
  elseif type(value) ~= "table" then
    text = tostring(value)
  elseif seen[value] or #indent > 32 then
    text = "{...}"
  elseif next(value) == nil then
    text = "{}"
  end
  if text then
    out[#out + 1], out.bytes = text, out.bytes + #text
    return
  end
  seen[value] = true
  local names, deeper = {}, indent .. "  "
  for name in pairs(value) do names[#names + 1] = name end
  table.sort(names, by_name)
  out[#out + 1] = "{\n"
  for _, name in ipairs(names) do
    local known = type(name) == "string" and name:match("^[%a_][%w_]*$") or "[" .. (type(name) == "string"
      and ("%q"):format(name) or tostring(name)) .. "]"
    out[#out + 1] = deeper .. known .. " = "
    words(value[name], deeper, seen, out)
    out[#out + 1] = ",\n"
  end
  out[#out + 1] = indent .. "}"
  seen[value] = nil
end

local inspecting = true
log.inspect = setmetatable({
  on = function() inspecting = true end,
  off = function() inspecting = false end,
}, {
  __call = function(_, ...)
    if not inspecting or not host.logs(levels.notice) then return end
    local parts = {}
    for i = 1, select("#", ...) do
      local out = { bytes = 0 }
      words((select(i, ...)), "", {}, out)
      parts[i] = table.concat(out)
    end
    host.log(levels.notice, origin(2) .. table.concat(parts, " "))
  end,
})

-- The record -----------------------------------------------------------------------------------------------------------------

local over = core.set_of("log")
local with_request = core.set_of("rewrite", "access", "response", "header_filter", "body_filter", "log")

-- Whether a value can stand in the record.
local function is_plain(value, seen)
  local kind = type(value)
  if value == nil or value == core.null or kind == "number" or kind == "string" or kind == "boolean" then return true end
  if kind ~= "table" or seen[value] then return false end
  seen[value] = true
  for name, each in pairs(value) do
    if type(name) == "table" or not is_plain(each, seen) then return false end
  end
  seen[value] = nil
  return true
end

local modes = { set = true, add = true, replace = true }

function log.set_serialize_value(key, value, options)
  check(with_request)
  if type(key) ~= "string" then error("key must be a string", 2) end
  if options ~= nil and type(options) ~= "table" then error("options must be a table or nil", 2) end
  local mode = options and options.mode or "set"
  if not modes[mode] then error("mode must be 'set', 'add' or 'replace'", 2) end
  if not is_plain(value, {}) then
    error("value must be nil, a number, string, boolean or a non self-referencial table containing numbers, string and booleans",
      2)
  end
  local problem = host.change_record(key, value, mode)
  if problem then error(problem, 2) end
end

function log.serialize()
  check(over)
  return host.record()
end

-- Deprecation ----------------------------------------------------------------------------------------------------------------

log.deprecation = setmetatable({}, {
  __call = function(_, ...)
    local parts = { ... }
    local options = type(parts[#parts]) == "table" and table.remove(parts) or {}
    for i = 1, #parts do parts[i] = tostring(parts[i]) end
    local text = table.concat(parts)
    if options.after and options.removal then
      text = text .. " (deprecated after " .. tostring(options.after) .. ", scheduled for removal in "
        .. tostring(options.removal) .. ")"
    elseif options.after then
      text = text .. " (deprecated after " .. tostring(options.after) .. ")"
    elseif options.removal then
      text = text .. " (scheduled for removal in " .. tostring(options.removal) .. ")"
    end
    if host.logs(levels.warn) then host.log(levels.warn, origin(2) .. text) end
  end,
})
log.deprecation.write = function(...) return log.deprecation(...) end

core.kong.log = setmetatable(log, {
  __call = function(_, ...)
    if host.logs(levels.notice) then host.log(levels.notice, origin(2) .. join(...)) end
  end,
})
