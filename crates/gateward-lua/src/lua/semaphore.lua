-- ngx.semaphore: a count that coroutines of one worker wait for.
local core = ...
local host = core.host

local methods = {}
local meta = { __index = methods, __metatable = "semaphore" }

local function of(self)
  local own = type(self) == "table" and rawget(self, "semaphore")
  if not own then error("not a semaphore", 3) end
  return own
end

function methods:post(n)
  n = n == nil and 1 or tonumber(n)
  if n == nil or n < 1 then error("no positive number of resources", 2) end
  host.semaphore_post(of(self), n)
  return true
end

function methods:wait(timeout)
  timeout = tonumber(timeout)
  if timeout == nil or timeout < 0 then error("timeout must be a number of seconds", 2) end
  local own = of(self)
  if host.semaphore_take(own) then return true end
  if timeout == 0 then return nil, "timeout" end
  if core.wait(host.semaphore_wait(own, timeout)) then return true end
  return nil, "timeout"
end

function methods:count()
  return host.semaphore_count(of(self))
end

core.semaphore = {
  version = "0.1.0",
  new = function(n)
    n = n == nil and 0 or tonumber(n)
    if n == nil or n < 0 then error("no positive number of resources", 2) end
    return setmetatable({ semaphore = host.semaphore(n) }, meta)
  end,
}
