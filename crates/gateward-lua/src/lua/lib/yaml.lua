-- lyaml: https://github.com/gvvaughan/lyaml
-- Texts of one document; keys of maps are strings.
local core = ...
local host = core.host

-- How deep, and how much, is written.
local DEEPEST, MOST = 64, 20000

local null = setmetatable({}, { __tostring = function() return "null" end, _type = "LYAML null" })
local lyaml = { _VERSION = "6.2.8", null = null }

function lyaml.load(text, options)
  if type(text) ~= "string" then error("bad argument #1 to 'load' (string expected, got " .. type(text) .. ")", 2) end
  local value, err = host.yaml(text, null)
  if err then error(err, 2) end
  if options == true or type(options) == "table" and options.all then return { value } end
  if value == null and not text:find("null", 1, true) and not text:find("~", 1, true) then return nil end
  return value
end

-- Words that mean something else than themselves.
local words = {}
for word in ("true false null yes no on off y n"):gmatch("%a+") do words[word] = true end

local function scalar(value)
  if value == null or value == core.ngx.null then return "~" end
  if type(value) == "number" then
    if value ~= value then return ".nan" end
    if value == math.huge or value == -math.huge then return value > 0 and ".inf" or "-.inf" end
    return value == math.floor(value) and math.abs(value) < 2 ^ 53 and ("%d"):format(value) or ("%.17g"):format(value)
  elseif type(value) == "string" then
    if value:find("^[%a_][%w_%-%./]*$") and not words[value:lower()] then return value end
    return (core.encode(value))
  elseif type(value) == "boolean" then
    return tostring(value)
  end
  error("cannot represent " .. type(value) .. " values", 0)
end

local function is_list(value)
  local entries = 0
  for _ in pairs(value) do entries = entries + 1 end
  return entries > 0 and entries == #value
end

local write

-- `value` behind what is on the line, or on lines of its own below it.
local function below(out, value, depth)
  if type(value) ~= "table" or value == null then
    out[#out + 1] = " " .. scalar(value) .. "\n"
  elseif next(value) == nil then
    out[#out + 1] = " {}\n"
  else
    out[#out + 1] = "\n"
    write(out, value, depth)
  end
  if #out > MOST * 3 then error("more than " .. MOST .. " values", 0) end
end

function write(out, value, depth)
  if depth > DEEPEST then error("nested deeper than " .. DEEPEST .. " levels, or a table within itself", 0) end
  local indent = ("  "):rep(depth)
  if is_list(value) then
    for _, item in ipairs(value) do
      out[#out + 1] = indent .. "-"
      below(out, item, depth + 1)
    end
    return
  end
  local keys = {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(one, other) return tostring(one) < tostring(other) end)
  for _, key in ipairs(keys) do
    out[#out + 1] = indent .. scalar(key) .. ":"
    below(out, value[key], depth + 1)
  end
end

-- The documents in the list `documents`, one behind the other.
function lyaml.dump(documents)
  if type(documents) ~= "table" then error("bad argument #1 to 'dump' (table expected, got " .. type(documents) .. ")", 2) end
  local out = {}
  local fine, err = pcall(function()
    for _, document in ipairs(documents) do
      out[#out + 1] = "---"
      below(out, document, 0)
      out[#out + 1] = "...\n"
    end
  end)
  if not fine then error(err, 2) end
  return table.concat(out)
end

return lyaml
