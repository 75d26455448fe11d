local lru = require("resty.lrucache").new(2)
lru:set("a", 1)
lru:set("b", 2, 0.001)
assert(lru:get("a") == 1)
ngx.sleep(0.01)
local value, stale = lru:get("b")
assert(value == nil and stale == 2)
lru:get("a")
lru:set("c", 3)
assert(lru:get("b") == nil and lru:get("a") == 1 and lru:get("c") == 3 and lru:count() == 2 and lru:capacity() == 2)
assert(lru:get_keys()[1] == "c" and #lru:get_keys(1) == 1)
lru:delete("a")
assert(lru:count() == 1)
lru:flush_all()
assert(lru:get("c") == nil and lru:count() == 0 and require("resty.lrucache").new(0) == nil)

local lock = require "resty.lock"
local first = lock:new("unit_locks", { timeout = 0.02, exptime = 5 })
assert(first:lock("k") == 0 and select(2, first:lock("k")) == "locked")
local second = lock:new("unit_locks", { timeout = 0.02 })
local waited, err = second:lock("k")
assert(waited == nil and err == "timeout", err)
local patient = lock:new("unit_locks", { timeout = 2 })
local thread = ngx.thread.spawn(function() return patient:lock("k") end)
ngx.sleep(0.005)
assert(first:expire(3) and first:unlock() == 1 and select(2, first:unlock()) == "unlocked")
local ok, time = ngx.thread.wait(thread)
assert(ok and time > 0 and patient:unlock())

-- kong.cache: made once, whoever asks.
local made = 0
local function make(word)
  made = made + 1
  ngx.sleep(0.01)
  return word .. made
end
local threads = {}
for i = 1, 10 do threads[i] = ngx.thread.spawn(function() return kong.cache:get("unit:a", nil, make, "x") end) end
for i = 1, 10 do
  local fine, got, why = ngx.thread.wait(threads[i])
  assert(fine and got == "x1" and why == nil, tostring(got) .. tostring(why))
end
assert(made == 1 and select(3, kong.cache:get("unit:a", nil, make, "x")) == 1)
assert(kong.cache:probe("unit:a") == 0 and kong.cache:probe("unit:none") == nil)
kong.cache:invalidate("unit:a")
assert(kong.cache:get("unit:a", nil, make, "x") == "x2")
kong.cache:purge()
assert(kong.cache:get("unit:a", nil, make, "x") == "x3")
local asked = 0
local function nothing() asked = asked + 1 return nil end
assert(kong.cache:get("unit:nil", { neg_ttl = 0.02 }, nothing) == nil and kong.cache:get("unit:nil", { neg_ttl = 0.02 }, nothing) == nil)
assert(asked == 1)
ngx.sleep(0.04)
kong.cache:get("unit:nil", nil, nothing)
assert(asked == 2)
local got, why = kong.cache:get("unit:err", nil, function() return nil, "broken" end)
assert(got == nil and why == "broken")
got, why = kong.cache:get("unit:raise", nil, function() error("raised") end)
assert(got == nil and why:find("callback threw an error", 1, true))
assert(kong.cache:get("unit:short", { ttl = 0.01 }, function() return 1 end) == 1)
ngx.sleep(0.03)
assert(kong.cache:get("unit:short", nil, function() return 2 end) == 2)
assert(kong.cache:safe_set("unit:set", 5) and kong.cache:get("unit:set") == 5)
assert(not pcall(kong.cache.get, kong.cache, 5))
