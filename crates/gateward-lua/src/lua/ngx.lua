-- `ngx`: what of OpenResty's API plugins use.
local core = ...
local host, state = core.host, core.state
local after_tries = core.set_of("response", "header_filter", "body_filter", "log")

local ngx = {
  null = core.null,
  STDERR = 0, EMERG = 1, ALERT = 2, CRIT = 3, ERR = 4, WARN = 5, NOTICE = 6, INFO = 7, DEBUG = 8,
  OK = 0, ERROR = -1, AGAIN = -2, DONE = -4, DECLINED = -5,
}

function ngx.log(level, ...)
  local parts = { n = select("#", ...), ... }
  for i = 1, parts.n do parts[i] = tostring(parts[i]) end
  host.log(level, table.concat(parts))
end

function ngx.sleep(seconds)
  if type(seconds) ~= "number" or seconds < 0 then error("invalid sleep duration \"" .. tostring(seconds) .. "\"", 2) end
  core.wait(host.sleep(seconds))
end

function ngx.now()
  return host.now()
end

function ngx.get_phase()
  return core.phase_name() or "init"
end

-- The piece of the response body in body_filter: [1] its bytes, [2] whether it is the last.
ngx.arg = setmetatable({}, {
  __index = function(_, index)
    if index == 1 then return host.chunk() end
    if index == 2 then return state.last == 1 end
  end,
  __newindex = function(_, index, value)
    if index == 1 then host.set_chunk(value ~= nil and tostring(value) or nil) end
    -- Nothing of the body follows.
    if index == 2 and value then host.end_body() end
  end,
})

setmetatable(ngx, {
  __index = function(_, name)
    if name == "ctx" then
      local own = core.tables()
      if own.noted ~= state.phase and bit.band(state.phase, after_tries) ~= 0 then
        own.noted = state.phase
        core.note_tries(host.tries_list())
      end
      return own.ctx
    end
  end,
  __newindex = function(self, name, value)
    if name == "ctx" then
      if type(value) ~= "table" then error("ctx should be a table while getting a " .. type(value), 2) end
      core.tables().ctx = value
    else
      rawset(self, name, value)
    end
  end,
})

return ngx
