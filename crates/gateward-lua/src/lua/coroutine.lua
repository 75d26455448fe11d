-- `coroutine` as plugins have it: what waits inside one of their coroutines waits for all of the handler, as in OpenResty.
local core = ...
local WAIT, LEAVE = core.WAIT, core.LEAVE
local co_create, co_resume, co_yield, co_running = coroutine.create, coroutine.resume, coroutine.yield, coroutine.running
local co_isyieldable = coroutine.isyieldable
local select, error, type = select, error, type

-- Hand on what the gateway's functions yielded inside `co`, until the plugin itself yields, returns or fails.
local function pass(co, ...)
  local fine, first, mark = ...
  if fine and mark == WAIT then
    if first == LEAVE then co_yield(LEAVE, WAIT) end
    return pass(co, co_resume(co, co_yield(first, WAIT)))
  end
  return ...
end

local function unwrap(fine, ...)
  if fine then return ... end
  error((...), 0)
end

return {
  create = co_create,
  isyieldable = function()
    return co_isyieldable() and not core.host.is_unyielding(co_running())
  end,
  running = function()
    local co = co_running()
    if co == nil or core.host.is_unyielding(co) then return nil end
    core.host.expose()
    return co
  end,
  status = coroutine.status,
  yield = co_yield,
  resume = function(co, ...)
    return pass(co, co_resume(co, ...))
  end,
  wrap = function(fn)
    if type(fn) ~= "function" then
      error("bad argument #1 to 'wrap' (function expected, got " .. type(fn) .. ")", 2)
    end
    local co = co_create(fn)
    return function(...)
      return unwrap(pass(co, co_resume(co, ...)))
    end
  end,
}
