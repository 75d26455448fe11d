-- kong.cache: values that are made once per worker and kept until their time is over, they are invalidated on any worker,
-- or another configuration is served. https://github.com/thibaultcha/lua-resty-mlcache
local core = ...
local host, ngx = core.host, core.ngx

-- Entries of a worker.
local SIZE = 10000
-- Seconds that a value is waited for which somebody else makes, and after which it is looked whether they still do.
local PATIENCE, LOOK = 5, 0.1

local cache = {}
core.kong.cache = cache
core.kong.core_cache = cache

local entries, making = nil, {}
local generation, purges = -1, 0
-- What invalidates on all workers: how often each key, and everything, was.
local versions = ngx.shared.kong_cache_versions

local function known()
  local now, purged = host.snapshot_generation(), versions:get("*") or 0
  if entries == nil or now ~= generation or purged ~= purges then
    entries = core.env.require("resty.lrucache").new(SIZE)
    generation, purges = now, purged
  end
  return entries
end

local function look(key)
  local entry = known():get(key)
  if entry and entry.version == (versions:get(key) or 0) then return entry end
end

local function keep(key, value, ttl, version)
  known():set(key, { value = value, version = version }, ttl and ttl > 0 and ttl or nil)
end

local function check(key)
  if type(key) ~= "string" then error("key must be a string", 3) end
end

local function make(key, options, callback, ...)
  local version = versions:get(key) or 0
  local fine, value, err, ttl = pcall(callback, ...)
  if not fine then return nil, "callback threw an error: " .. tostring(value), -1 end
  if err ~= nil then return nil, tostring(err), -1 end
  if value == nil then
    ttl = tonumber(ttl) or options.neg_ttl
  else
    ttl = tonumber(ttl) or options.ttl
  end
  if not ttl or ttl >= 0 then keep(key, value, ttl, version) end
  return value, nil, 3
end

function cache:get(key, options, callback, ...)
  check(key)
  if callback ~= nil and type(callback) ~= "function" then error("callback must be a function", 2) end
  local entry = look(key)
  if entry then return entry.value, nil, 1 end
  if callback == nil then return nil, nil, -1 end
  -- One makes it, others wait.
  local left = PATIENCE
  while making[key] and core.may_wait() do
    local running = making[key]
    running.waiting = running.waiting + 1
    if not running.done:wait(LOOK) then
      left = left - LOOK
      if left <= 0 then return nil, "could not acquire callback lock: timeout", -1 end
      -- Whoever made it may be gone with its request.
      if making[key] == running and not host.under_way(running.slot, running.request) then making[key] = nil end
    end
    entry = look(key)
    if entry then return entry.value, nil, 2 end
    if running.err then return nil, running.err, -1 end
  end
  local state = core.state
  local running = { waiting = 0, done = core.semaphore.new(), slot = state.slot, request = state.request }
  making[key] = running
  local value, err, level = make(key, type(options) == "table" and options or {}, callback, ...)
  running.err = err
  if making[key] == running then making[key] = nil end
  if running.waiting > 0 then running.done:post(running.waiting) end
  return value, err, level
end

-- Whether there is a value, and for how long.
function cache:probe(key)
  check(key)
  local entry = look(key)
  if entry then return 0, nil, entry.value end
end

function cache:safe_set(key, value)
  check(key)
  keep(key, value, nil, versions:get(key) or 0)
  return true
end

function cache:renew(key, options, callback, ...)
  check(key)
  return make(key, type(options) == "table" and options or {}, callback, ...)
end

function cache:get_bulk(bulk)
  local results = { n = bulk.n or math.floor(#bulk / 4) }
  for i = 1, results.n do
    local at = (i - 1) * 4
    local value, err, level = self:get(bulk[at + 1], bulk[at + 2], bulk[at + 3], bulk[at + 4])
    local to = (i - 1) * 3
    results[to + 1], results[to + 2], results[to + 3] = value, err, level
  end
  return results
end

function cache:invalidate_local(key)
  check(key)
  known():delete(key)
end

function cache:invalidate(key)
  check(key)
  known():delete(key)
  versions:incr(key, 1, 0)
end

function cache:purge()
  versions:incr("*", 1, 0)
  entries = nil
end

function cache:cache_key(...)
  return table.concat({ ... }, ":")
end
