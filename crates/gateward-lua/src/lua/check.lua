-- For `gateward plugin check`: what of what a plugin mentions is there.
local core = ...

-- What is made as it is asked for, or belongs to the request: anything may be below.
local dynamic = {}
for name in ([[
  kong.ctx.shared kong.ctx.plugin kong.configuration ngx.arg ngx.ctx ngx.header ngx.shared ngx.status
]]):gmatch("%S+") do dynamic[name] = true end

local function index(value, name)
  local found = rawget(value, name)
  if found ~= nil then return true, found end
  local meta = getmetatable(value)
  local behind = type(meta) == "table" and rawget(meta, "__index")
  if type(behind) == "table" then return index(behind, name) end
  if type(behind) == "function" then
    local fine, made = pcall(behind, value, name)
    -- What can only be looked at during a request is there.
    if not fine then return true, nil end
    return made ~= nil, made
  end
  return false
end

-- How much of a chain of names is there: the whole chain, or the shortest part of it that is not.
local function missing(chain)
  local value, path = core.env, nil
  for name in chain:gmatch("[^.]+") do
    path = path and path .. "." .. name or name
    if path == "ngx.var" then
      local variable = chain:match("^ngx%.var%.([%w_]+)")
      return variable and core.is_absent_variable(variable) and "ngx.var." .. variable or nil
    end
    if dynamic[path] then return nil end
    local kind = type(value)
    if kind ~= "table" then return nil end
    local there, found = index(value, name)
    if not there then return path end
    value = found
  end
end

-- Before any file of a plugin is loaded.
local brought = {}
for name in pairs(core.loaded) do brought[name] = true end

-- Whether the gateway brings this module.
local function brings(name)
  return brought[name] ~= nil or core.preload[name] ~= nil
end

local function modules()
  local names = {}
  for name in pairs(brought) do names[#names + 1] = name end
  for name in pairs(core.preload) do
    if not brought[name] then names[#names + 1] = name end
  end
  return names
end

return { missing = missing, brings = brings, modules = modules, absent_variables = core.absent_variables }
