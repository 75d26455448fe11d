-- resty.lock: one of all workers does something at a time. The lock is an entry of a shared dictionary.
local core = ...
local ngx = core.ngx

local lock = { _VERSION = "0.09" }
local meta = { __index = lock }
local tokens = 0

function lock.new(_, name, options)
  local dict = ngx.shared[name]
  if not dict then return nil, "dictionary not found" end
  options = options or {}
  local self = {
    dict = dict,
    exptime = tonumber(options.exptime) or 30,
    timeout = tonumber(options.timeout) or 5,
    step = tonumber(options.step) or 0.001,
    ratio = tonumber(options.ratio) or 2,
    max_step = tonumber(options.max_step) or 0.5,
  }
  if self.timeout > self.exptime then self.timeout = self.exptime end
  return setmetatable(self, meta)
end

function lock:lock(key)
  if not key then return nil, "nil key" end
  if self.key then return nil, "locked" end
  local dict, waited, step = self.dict, 0, self.step
  while true do
    tokens = tokens + 1
    local ok, err = dict:add(key, tokens, self.exptime)
    if ok then
      self.key, self.token = key, tokens
      return waited
    end
    if err ~= "exists" then return nil, err end
    local left = self.timeout - waited
    if left <= 0 then return nil, "timeout" end
    local pause = math.min(step, left)
    ngx.sleep(pause)
    waited = waited + pause
    step = math.min(math.max(step, 0.001) * self.ratio, self.max_step)
  end
end

function lock:unlock()
  local key = self.key
  if not key then return nil, "unlocked" end
  self.key = nil
  return self.dict:delete(key) and 1
end

function lock:expire(time)
  if not self.key then return nil, "unlocked" end
  local ok, err = self.dict:replace(self.key, self.token, time or self.exptime)
  if not ok then return nil, err end
  return true
end

return lock
