-- kong.tools.sandbox: running Lua that stands in a configuration, as the setting `untrusted_lua` allows.
local core = ...
local host, settings = core.host, core.untrusted

local off = "loading of untrusted Lua code disabled because 'untrusted_lua' config option is set to 'off'"

-- What code in the sandbox has: the language, in tables of its own. `kong` and `ngx` it gets as views (sandbox.view).
local language = [[
  _VERSION assert error ipairs next pairs pcall select tonumber tostring type unpack xpcall
  coroutine.create coroutine.resume coroutine.running coroutine.status coroutine.wrap coroutine.yield
  math.abs math.acos math.asin math.atan math.atan2 math.ceil math.cos math.cosh math.deg math.exp math.floor math.fmod
  math.frexp math.huge math.ldexp math.log math.log10 math.max math.min math.modf math.pi math.pow math.rad math.random
  math.sin math.sinh math.sqrt math.tan math.tanh
  os.clock os.date os.difftime os.time
  string.byte string.char string.find string.format string.gmatch string.gsub string.len string.lower string.match
  string.rep string.reverse string.sub string.upper
  table.concat table.insert table.maxn table.remove table.sort
]]

-- Give `env` what `path` leads to in the environment of plugins.
local function provide(env, path)
  local from, into, last = core.env, env, nil
  for name in path:gmatch("[^.]+") do
    if last then
      local inner = rawget(into, last)
      if type(inner) ~= "table" or inner == from then
        inner = {}
        into[last] = inner
      end
      into = inner
    end
    if type(from) ~= "table" then return end
    from, last = from[name], name
  end
  if last then into[last] = from end
end

local allowed = {}
for _, name in ipairs(settings.requires) do allowed[name] = true end

local function environment(more)
  local env = {}
  if settings.mode == "on" then
    setmetatable(env, { __index = core.env })
  else
    for path in language:gmatch("%S+") do provide(env, path) end
    for _, path in ipairs(settings.environment) do provide(env, path) end
    env.require = function(name)
      if not allowed[name] then error("require '" .. tostring(name) .. "' not allowed within sandbox", 2) end
      return core.env.require(name)
    end
  end
  for name, value in pairs(more or {}) do env[name] = value end
  env._G = env
  return env
end

core.sandbox_environment = environment

local sandbox = {}

-- Tables of the request under way that are given as they are, by where they stand.
local of_request = { [core.ngx] = { ctx = true }, [core.kong.ctx] = { plugin = true, shared = true } }
-- What stands for something of the request: what is read and set there goes through, so that nothing stays in the table.
local stands_for = { [core.ngx.arg] = true, [core.ngx.header] = true, [core.ngx.var] = true }
-- What can be set, by where it stands.
local settable = { [core.ngx] = { ctx = true, status = true } }

local function copy(value)
  if type(value) ~= "table" then return value end
  local result = {}
  for name, each in pairs(value) do result[name] = copy(each) end
  return result
end

local function copied(fn)
  return function() return copy(fn()) end
end
-- Functions whose results are everybody's.
local in_place_of = {
  [core.kong.router.get_route] = copied(core.kong.router.get_route),
  [core.kong.router.get_service] = copied(core.kong.router.get_service),
}

-- Views for one piece of code. A view shows what is in a table and takes nothing, so that what is everybody's stays as it is; nor
-- does one piece of code find what another left in its own.
local function viewer()
  local views = {}
  local function view(source)
    local known = views[source]
    if known then return known end
    local raw, may_set = of_request[source], settable[source]
    local through = stands_for[source]
    local own = setmetatable({}, {
      __index = function(_, name)
        local value = source[name]
        if type(value) == "function" then return in_place_of[value] or value end
        if type(value) ~= "table" or through or (raw and raw[name]) then return value end
        return view(value)
      end,
      __newindex = function(_, name, value)
        if not through and not (may_set and may_set[name]) then
          error("'" .. tostring(name) .. "' cannot be set within sandbox", 2)
        end
        source[name] = value
      end,
      __call = function(_, ...) return source(...) end,
      __metatable = false,
    })
    -- Methods of a dictionary are called with the view.
    core.share_dict(source, own)
    views[source] = own
    return own
  end
  return view
end

-- What `source`, `kong` or `ngx`, is for a piece of code.
function sandbox.view(source)
  if settings.mode == "on" then return source end
  return viewer()(source)
end

-- The function that `code` is, in an environment of its own; nil and why not. Options: `env`, what it has beside the
-- language; `chunk_name`, what errors call it.
function sandbox.sandbox(code, options)
  if settings.mode == "off" then return nil, off end
  if type(code) ~= "string" then return nil, "expected a string, got " .. type(code) end
  options = options or {}
  local made, result = pcall(host.compile, code, "=" .. (options.chunk_name or "sandbox"), environment(options.env))
  if made then return result end
  return nil, (tostring(result):gsub("\nstack traceback:.*", ""):gsub("^syntax error: ", ""))
end

-- Whether `code` can be run.
function sandbox.validate(code, options)
  local made, reason = sandbox.sandbox(code, options)
  if made then return true end
  return nil, reason
end
sandbox.validate_safe = sandbox.validate

function sandbox.validate_function(code, options)
  local made, reason = sandbox.sandbox(code, options)
  if made then return made end
  return false, "Error parsing function: " .. reason
end
sandbox.parse = sandbox.sandbox

return sandbox
