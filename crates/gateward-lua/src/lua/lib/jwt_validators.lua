-- resty.jwt-validators: functions of (value, claim, json) that say whether a claim is as it should be, or raise why it is not.
-- https://github.com/cdbattags/lua-resty-jwt
local core = ...
local ngx = core.ngx

local validators = { _VERSION = "0.2.4" }
local clock, system_leeway = ngx.now, 0

local function insist(holds, text, ...)
  if not holds then error(text:format(...), 0) end
end

local function creating(value, kind, name)
  insist(value ~= nil, "Cannot create validator for nil %s.", name)
  insist(type(value) == kind, "Cannot create validator for non-%s %s.", kind, name)
end

-- A list of values of one kind.
local function creating_list(list, kind, name)
  creating(list, "table", name)
  insist(next(list) ~= nil, "Cannot create validator for empty table %s.", name)
  for _, value in ipairs(list) do
    insist(type(value) == kind, "Cannot create validator for non-%s table %s.", kind, name)
  end
end

function validators.chain(...)
  local links = { ... }
  for _, link in ipairs(links) do creating(link, "function", "chain_function") end
  return function(value, claim, json)
    for _, link in ipairs(links) do
      if link(value, claim, json) == false then return false end
    end
    return true
  end
end

function validators.required(link)
  local there = function(value, claim)
    insist(value ~= nil, "'%s' claim is required.", claim)
    return true
  end
  return link == nil and there or validators.chain(there, link)
end

-- One for claims that may be absent, and one for those that may not.
local function define(name, make)
  validators["opt_" .. name] = make
  validators[name] = function(...) return validators.required(make(...)) end
end

function validators.require_one_of(claims)
  creating_list(claims, "string", "claim_keys")
  return function(token, claim)
    insist(type(token) == "table", "'%s' is malformed.  Expected to be a table.", claim)
    insist(type(token.payload) == "table", "'%s.payload' is malformed.  Expected to be a table.", claim)
    for _, name in ipairs(claims) do
      if token.payload[name] ~= nil then return true end
    end
    error("Missing one of claims - [ " .. table.concat(claims, ", ") .. " ].", 0)
  end
end

define("check", function(against, fits, name, kind)
  insist(against ~= nil, "Cannot create validator for nil %s.", name or "check_val")
  creating(fits, "function", "check_function")
  kind = kind or type(against)
  return function(value, claim)
    if value == nil then return true end
    insist(type(value) == kind, "'%s' is malformed.  Expected to be a %s.", claim, kind)
    return fits(value, against)
  end
end)

define("any_of", function(list, fits, name, kind, list_kind)
  name = name or "check_values"
  creating(list, "table", name)
  list_kind = list_kind or type(list[1])
  creating_list(list, list_kind, name)
  creating(fits, "function", "check_function")
  return validators.opt_check(list, function(value)
    for _, one in ipairs(list) do
      if fits(value, one) then return true end
    end
    return false
  end, name, kind or list_kind)
end)

local function same(value, other) return value == other end
local function matching(value, pattern) return value:match(pattern) ~= nil end
local function holding(values, wanted)
  for _, value in pairs(values) do
    if value == wanted then return true end
  end
  return false
end

define("equals", function(against) return validators.opt_check(against, same) end)
define("matches", function(pattern)
  creating(pattern, "string", "pattern")
  return validators.opt_check(pattern, matching)
end)
define("equals_any_of", function(list) return validators.opt_any_of(list, same) end)
define("matches_any_of", function(list) return validators.opt_any_of(list, matching, "patterns", "string", "string") end)
define("contains_any_of", function(list, name) return validators.opt_any_of(list, holding, name, "table", "string") end)

for name, fits in pairs {
  greater_than = function(value, other) return value > other end,
  greater_than_or_equal = function(value, other) return value >= other end,
  less_than = function(value, other) return value < other end,
  less_than_or_equal = function(value, other) return value <= other end,
} do
  define(name, function(against)
    creating(against, "number", "check_val")
    return validators.opt_check(against, fits)
  end)
end

-- Times -------------------------------------------------------------------------------------------------------------------

-- The last second of the year 9999: what is later has no date in four digits.
local LATEST = 253402300799

local function leeway_of(value)
  insist(type(value) == "number" and value >= 0, "leeway must be a non-negative number")
  return value
end

function validators.set_system_leeway(leeway) system_leeway = leeway_of(leeway) end

function validators.set_system_clock(own)
  insist(type(own) == "function", "clock must be a function")
  local now = own()
  insist(type(now) == "number" and now >= 0, "clock function must return a non-negative number")
  clock = own
end

for name, time in pairs {
  is_not_before = { "not valid until", function(value, now, leeway) return value <= now + leeway end },
  is_not_expired = { "expired at", function(value, now, leeway) return value > now - leeway end },
  is_at = { "is only valid at", function(value, now, leeway) return value >= now - leeway and value <= now + leeway end },
} do
  local what, fits = time[1], time[2]
  define(name, function(options)
    if options ~= nil then creating(options, "table", "options") end
    local own = options and options.leeway
    if own ~= nil then leeway_of(own) end
    return function(value, claim)
      if value == nil then return true end
      insist(type(value) == "number" and value >= 0, "'%s' is malformed.  Expected to be a positive numeric value.", claim)
      if fits(value, clock(), own or system_leeway) then return true end
      error(("'%s' claim %s %s"):format(claim, what, value <= LATEST and ngx.http_time(value) or tostring(value)), 0)
    end
  end)
end

return validators
