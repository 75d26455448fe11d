-- The environment of plugins, and `require` in it.
--
-- Plugins share one environment, as in Kong. They get the language and what the gateway brings, and nothing that reaches the
-- system, the machine or other plugins' requests behind the gateway's back.
local core = ...
local host = core.host

local function copy(source, names)
  local result = {}
  for name in names:gmatch("%S+") do result[name] = source[name] end
  return result
end

string.dump = nil

local env = copy(_G, [[
  assert error getmetatable ipairs next pairs pcall rawequal rawget rawlen rawset select setmetatable tonumber tostring type
  unpack xpcall _VERSION
]])
env._G = env
env.bit = bit
env.coroutine = core.coroutine
env.math = math
env.string = string
env.table = table
env.os = copy(os, "clock date difftime getenv time")
env.io = { type = io.type }
env.kong = core.kong
env.ngx = core.ngx
env.ndk = { set_var = {} }
env.print = function(...)
  core.ngx.log(core.ngx.NOTICE, ...)
end

local text_only = function(text, name, environment)
  local made, result = pcall(host.compile, text, name or "=(load)", environment or env)
  if made then return result end
  return nil, tostring(result)
end
env.loadstring = function(text, name) return text_only(text, name) end
env.load = function(source, name, mode, environment)
  if mode == "b" then return nil, "bytecode cannot be loaded" end
  if type(source) == "function" then
    local parts = {}
    for part in source do
      if part == "" then break end
      parts[#parts + 1] = part
    end
    source = table.concat(parts)
  end
  return text_only(source, name, environment)
end
-- The environment of the gateway's own functions is not for plugins.
local own, getfenv, setfenv = _G, getfenv, setfenv
env.getfenv = function(fn)
  local found = type(fn) == "function" and getfenv(fn) or env
  return found == own and env or found
end
env.setfenv = function(fn, environment)
  if type(fn) ~= "function" or getfenv(fn) == own then error("setfenv takes a function of a plugin here", 2) end
  return setfenv(fn, environment)
end

-- require ------------------------------------------------------------------------------------------------------------

local loaded = {
  _G = env, bit = bit, coroutine = core.coroutine, math = math, string = string, table = table, os = env.os, io = env.io,
  ["table.new"] = require "table.new", ["table.clear"] = require "table.clear",
}
local preload = {}
env.package = { loaded = loaded, preload = preload, path = "", cpath = "" }
core.env, core.loaded, core.preload = env, loaded, preload

local loading = {}
local blocking = { socket = true, ["socket.http"] = true, ["socket.tcp"] = true, ["ssl.https"] = true, ssl = true }

function env.require(name)
  if type(name) ~= "string" then error("bad argument #1 to 'require' (string expected, got " .. type(name) .. ")", 2) end
  local known = loaded[name]
  if known ~= nil then return known end
  if loading[name] then error("loop or previous error loading module '" .. name .. "'", 2) end
  local load = preload[name] or host.load(name, env)
  if load == nil and blocking[name] then
    error("module '" .. name .. "' not found: LuaSocket holds up all requests of a worker; use resty.http", 2)
  end
  if load == nil then
    error("module '" .. name .. "' not found: neither among the plugins' files nor among what the gateway brings", 2)
  end
  loading[name] = true
  local fine, result = pcall(load, name)
  loading[name] = nil
  if not fine then error(result, 0) end
  if result ~= nil then
    loaded[name] = result
  elseif loaded[name] == nil then
    loaded[name] = true
  end
  return loaded[name]
end

return env.require
