-- A plugin's schema.lua as plain data for the loader, and the functions in it when the loader asks them.
--
-- A function is named by where it stands in the schema: the same sources give the same names in every machine.
local core = ...
local null = core.null

-- Bounds of a schema: values, and tables in tables.
local VALUES, DEPTH = 100000, 48

-- Definitions ------------------------------------------------------------------------------------------------------------

-- A definition can be called with attributes to add: a copy with them.
local definition = {}
function core.define(fields)
  return setmetatable(fields, definition)
end
definition.__call = function(self, more)
  local merged = {}
  for key, value in pairs(self) do merged[key] = value end
  for key, value in pairs(more) do merged[key] = value end
  return core.define(merged)
end

local files = core.files
core.preload["kong.db.schema.typedefs"] = function() return files["schema.typedefs"](core) end
core.preload["kong.tools.queue_schema"] = function() return files["schema.queue"](core) end
core.preload["kong.tools.redis.schema"] = function() return files["schema.redis"](core) end
core.preload["kong.db.schema"] = function()
  return {
    define = core.define,
    -- Plugins make schemas of their own to check what they get at run time.
    new = function(fields) return core.define(fields) end,
  }
end

-- Describing -------------------------------------------------------------------------------------------------------------

local functions = {}

local function describe(plugin, schema)
  local own, count = {}, 0
  functions[plugin] = own

  -- `owner`: the table with `fields` that `value` belongs to.
  local function copy(value, path, depth, table_of, owner)
    count = count + 1
    if count > VALUES then error("the schema has more than " .. VALUES .. " values", 0) end
    local kind = type(value)
    if kind == "function" then
      own[path] = { call = value, field = table_of, owner = owner }
      return { ["$function"] = path }
    end
    if kind == "number" then
      if value ~= value then error(path .. " is not a number", 0) end
      return math.max(math.min(value, 1.7e308), -1.7e308)
    end
    if kind == "string" or kind == "boolean" or value == null then return value end
    if kind ~= "table" then error(path .. " is a " .. kind .. ", which a schema has no use for", 0) end
    if depth > DEPTH then error("the schema is nested deeper than " .. DEPTH .. " tables", 0) end
    if rawget(value, "fields") ~= nil then owner = value end
    local result = {}
    for key, inner in next, value do
      if type(key) ~= "string" and type(key) ~= "number" then
        error(path .. " has a " .. type(key) .. " as a key", 0)
      end
      result[key] = copy(inner, path .. "/" .. tostring(key), depth + 1, value, owner)
    end
    return result
  end

  return copy(schema, "", 0)
end

-- Asking -----------------------------------------------------------------------------------------------------------------

local function is_empty(value)
  return value == nil or value == null or value == "" or (type(value) == "table" and next(value) == nil)
end

local function definition_of(entry)
  if type(entry) ~= "table" then return nil end
  local name, field = next(entry)
  return name, type(field) == "table" and field or {}
end

-- What Kong's functions see of a value: every field of a record, null where there is nothing.
local function filled(field, value, depth)
  if type(value) ~= "table" or type(field) ~= "table" or depth > DEPTH then return value end
  if field.fields then
    for _, entry in ipairs(field.fields) do
      local name, inner = definition_of(entry)
      if name then
        local held = value[name]
        value[name] = held == nil and null or filled(inner, held, depth + 1)
      end
    end
  elseif field.elements or field.values then
    for key, inner in next, value do value[key] = filled(field.elements or field.values, inner, depth + 1) end
  end
  return value
end

local function get(record, path)
  for name in path:gmatch("[^.]+") do
    if type(record) ~= "table" then return nil end
    record = record[name]
  end
  return record
end

local function set(record, path, value)
  local names = {}
  for name in path:gmatch("[^.]+") do names[#names + 1] = name end
  for i = 1, #names - 1 do
    local inner = record[names[i]]
    if type(inner) ~= "table" then
      inner = {}
      record[names[i]] = inner
    end
    record = inner
  end
  record[names[#names]] = value
end

-- An error as the plugin gave it: the text, and the field when it names one.
local function reason_of(reason)
  if type(reason) ~= "table" then return reason ~= nil and tostring(reason) or nil end
  local name, inner = next(reason)
  if name == nil then return nil end
  local text, deeper = reason_of(inner)
  if type(name) == "number" or name == "@entity" then return text, deeper end
  return text, deeper and name .. "." .. deeper or name
end

local function refused(what, reason)
  local text, field = reason_of(reason)
  return false, text or what, field
end

local asks = {}

-- A value.
function asks.custom_validator(found, value)
  local fine, reason = found.call(filled(found.field, value, 0))
  if fine then return true end
  return refused("failed validating: " .. (type(value) == "table" and "this value" or tostring(value)), reason)
end

-- A record; `sources` are the fields the function may see.
function asks.custom_entity_check(found, record, sources)
  record = filled(found.owner, record, 0)
  local seen = {}
  for _, name in ipairs(sources) do set(seen, name, get(record, name)) end
  if #sources == 0 then seen = record end
  local fine, reason = found.call(seen)
  if fine then return true end
  return refused("entity check failed", reason)
end

-- The values that the value of a shorthand stands for.
function asks.shorthand(found, value)
  local values = found.call(value)
  return true, type(values) == "table" and values or {}
end

-- What a transformation gives for these values.
function asks.transform(found, ...)
  for i = 1, select("#", ...) do
    if is_empty((select(i, ...))) then return true, {} end
  end
  local values, reason = found.call(...)
  if values == nil and reason ~= nil then return refused("transformation failed", reason) end
  return true, type(values) == "table" and values or {}
end

-- Kong's rules with Lua patterns.
local patterns = {}

function patterns.match(value, pattern)
  if not value:match(pattern) then return false, "invalid value: " .. value end
  return true
end

function patterns.not_match(value, pattern)
  if value:match(pattern) then return false, "invalid value: " .. value end
  return true
end

function patterns.match_all(value, list)
  for _, one in ipairs(list) do
    if not value:match(one.pattern) then return false, one.err or "invalid value: " .. value end
  end
  return true
end

function patterns.match_none(value, list)
  for _, one in ipairs(list) do
    if value:match(one.pattern) then return false, one.err or "invalid value: " .. value end
  end
  return true
end

function patterns.match_any(value, list)
  for _, pattern in ipairs(list.patterns) do
    if value:match(pattern) then return true end
  end
  return false, list.err or "invalid value: " .. value
end

local function ask(plugin, what, id, ...)
  local pattern = patterns[what]
  if pattern then
    local value, argument = ...
    if type(value) ~= "string" then return true end
    return pattern(value, argument)
  end
  local found = functions[plugin] and functions[plugin][id]
  if not found then return false, "the schema's function is gone: it is not the same in every machine" end
  return asks[what](found, ...)
end

return { describe = describe, ask = ask, known = function(plugin) return functions[plugin] ~= nil end }
