-- ngx.timer: functions that run later, without a request.
local core = ...
local host, ngx = core.host, core.ngx

-- What the timers that wait will call, by their numbers.
local waiting, last = {}, 0

host.on_timer(function(number, again, premature)
  local run = waiting[number]
  if premature or not again then waiting[number] = nil end
  return run(premature)
end)

local function start(name, least, again, delay, callback, ...)
  if type(delay) ~= "number" then
    error("bad argument #1 to '" .. name .. "' (number expected, got " .. type(delay) .. ")", 3)
  end
  if not (delay >= least) then error("delay must be at least " .. least .. " s", 3) end
  if type(callback) ~= "function" then
    error("bad argument #2 to '" .. name .. "' (function expected, got " .. type(callback) .. ")", 3)
  end
  local n = select("#", ...)
  local run = callback
  if n > 0 then
    local arguments = { ... }
    run = function(premature) return callback(premature, unpack(arguments, 1, n)) end
  end
  last = last + 1
  local err = host.timer(delay, again, last)
  if err then return nil, err end
  waiting[last] = run
  return true
end

ngx.timer = {
  at = function(delay, callback, ...)
    return start("at", 0, false, delay, callback, ...)
  end,
  every = function(delay, callback, ...)
    return start("every", 0.001, true, delay, callback, ...)
  end,
  pending_count = function() return (host.timer_counts()) end,
  running_count = function() return (select(2, host.timer_counts())) end,
}
