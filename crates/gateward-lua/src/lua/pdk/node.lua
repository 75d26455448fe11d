-- kong.node, kong.cluster, kong.ip, kong.nginx, kong.router, kong.plugin, kong.configuration.
-- https://developer.konghq.com/gateway/pdk/reference/
local core = ...
local host, state, check = core.host, core.state, core.check
local kong = core.kong

local routed = core.set_of("access", "response", "header_filter", "body_filter", "log", "preread")

kong.router = {}

function kong.router.get_route()
  check(routed)
  return host.route()
end

function kong.router.get_service()
  check(routed)
  return host.service()
end

kong.plugin = {}

function kong.plugin.get_id()
  local plugin = core.plugins[state.instance]
  return plugin and plugin.id
end

kong.ip = {}

function kong.ip.is_trusted(address)
  if type(address) ~= "string" then error("address must be a string", 2) end
  return host.is_trusted(address)
end

kong.cluster = {}

-- A node by itself is in no cluster.
function kong.cluster.get_id()
  return nil, "the node is not part of a cluster"
end

kong.nginx = {}

function kong.nginx.get_subsystem()
  return host.wire("subsystem") or "http"
end

-- Connections and requests of the whole process.
function kong.nginx.get_statistics()
  local figures = host.statistics()
  if not figures then return nil, "nothing is counted here" end
  return figures
end

kong.node = {}

function kong.node.get_id()
  return host.node_id
end

function kong.node.get_hostname()
  return host.hostname
end

local units = { b = 0, k = 1, m = 2, g = 3 }

-- Bytes in a unit with `scale` digits behind the point; a number for bytes.
local function scaled(bytes, unit, scale)
  if unit == "b" then return bytes end
  local power = units[unit]
  return ("%." .. scale .. "f %siB"):format(bytes / 1024 ^ power, unit == "k" and "K" or unit:upper())
end

function kong.node.get_memory_stats(unit, scale)
  unit, scale = unit or "b", scale or 2
  if type(unit) ~= "string" then error("unit must be a string (was " .. type(unit) .. ")", 2) end
  if not units[unit:lower()] then
    error("invalid unit '" .. unit .. "' (expected 'k/K', 'm/M', or 'g/G')", 2)
  end
  if type(scale) ~= "number" then error("scale must be a number (was " .. type(scale) .. ")", 2) end
  if scale < 0 then error("scale must be equal or greater than 0", 2) end
  return {
    lua_shared_dicts = {},
    workers_lua_vms = { { pid = host.pid, http_allocated_gc = scaled(host.memory(), unit:lower(), math.floor(scale)) } },
  }
end

-- Settings as they are in effect; nothing here can be changed.
local function read_only(settings)
  for name, value in pairs(settings) do
    if type(value) == "table" then settings[name] = read_only(value) end
  end
  return setmetatable({}, {
    __index = settings,
    __newindex = function() error("cannot write to configuration", 2) end,
    __len = function() return #settings end,
    __pairs = function() return pairs(settings) end,
    __tostring = function() return core.encode(settings) end,
    __metatable = false,
  })
end

kong.configuration = read_only(host.configuration)
