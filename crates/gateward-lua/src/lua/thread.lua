-- ngx.thread: light threads of a handler. They run when it waits, and it is over when all of them are.
local core = ...
local host, state, ngx = core.host, core.state, core.ngx
local WAIT, LEAVE = core.WAIT, core.LEAVE
local band = bit.band
local co_create, co_resume, co_status, co_yield = coroutine.create, coroutine.resume, coroutine.status, coroutine.yield
local traceback = debug.traceback

-- What is known of each thread, by its coroutine.
local records = setmetatable({}, { __mode = "k" })

local function failed(err)
  if type(err) == "string" then host.log(ngx.ERR, traceback("lua user thread aborted: runtime error: " .. err, 2)) end
  return err
end

local function finish(record, ...)
  record.results = { n = select("#", ...), ... }
  record.flag:raise()
end

local function body(record, fn, ...)
  finish(record, xpcall(fn, failed, ...))
end

local function check()
  if band(state.phase, core.waits) == 0 then
    error("API disabled in the context of " .. (core.phase_name() or "a module being loaded"), 3)
  end
end

ngx.thread = {
  spawn = function(fn, ...)
    check()
    if type(fn) ~= "function" then
      error("bad argument #1 to 'spawn' (function expected, got " .. type(fn) .. ")", 2)
    end
    local record = { flag = host.flag() }
    local co = co_create(body)
    records[co] = record
    local fine, first, mark = co_resume(co, record, fn, ...)
    if not fine then error(first, 0) end
    if co_status(co) ~= "dead" then
      if first == LEAVE and mark == WAIT then co_yield(LEAVE, WAIT) end
      local err = host.adopt(co, mark == WAIT and first or nil)
      if err then error(err, 2) end
    end
    return co
  end,

  -- The results of whichever ends first.
  wait = function(...)
    check()
    local flags, n = {}, select("#", ...)
    if n == 0 then error("at least one coroutine should be specified", 2) end
    for i = 1, n do
      local record = records[select(i, ...)]
      if record == nil then
        error("bad argument #" .. i .. " to 'wait' (lua thread expected, got " .. type((select(i, ...))) .. ")", 2)
      end
      if record.gone then return nil, "already waited or killed" end
      flags[i] = record.flag
    end
    local index = core.wait(host.any_flag(unpack(flags)))
    local record = records[select(index, ...)]
    record.gone = true
    return unpack(record.results, 1, record.results.n)
  end,

  kill = function(co)
    check()
    local record = records[co]
    if record == nil then
      error("bad argument #1 to 'kill' (lua thread expected, got " .. type(co) .. ")", 2)
    end
    if record.gone then return nil, "already waited or killed" end
    if record.results then return nil, "already terminated" end
    record.gone = true
    host.kill(co)
    return 1
  end,
}

-- A handler whose client has gone is ended with all that it waits for; there is nothing to be told.
function ngx.on_abort(fn)
  if type(fn) ~= "function" then error("bad argument #1 to 'on_abort' (function expected, got " .. type(fn) .. ")", 2) end
  return 1
end
