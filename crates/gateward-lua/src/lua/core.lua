-- What every other file stands on: the record of the call under way, the functions in Rust, phases, waiting.
local boot = ...
local ffi = require "ffi"
local bit = require "bit"
local band, bor = bit.band, bit.bor
local co_yield = coroutine.yield

-- Alike in state.rs and fast.rs.
ffi.cdef [[
typedef struct {
  const void *reading;
  void *exchange;
  const void *record;
  void *chunk;
  double request;
  uint32_t slot, phase, instance, last;
} gw_state;
typedef struct { const uint8_t *data; size_t bytes; } gw_slice;
typedef bool (*gw_get)(const gw_state *, const char *, size_t, gw_slice *);
typedef bool (*gw_text)(const gw_state *, uint32_t, gw_slice *);
typedef uint32_t (*gw_set)(const gw_state *, const char *, size_t, const char *, size_t);
]]

local core = {
  host = boot.host,
  null = boot.host.null,
  state = ffi.cast("gw_state *", boot.state),
  slice = ffi.new("gw_slice[1]"),
  files = boot.files,
  copy = ffi.string,
  request_header = ffi.cast("gw_get", boot.fast.request_header),
  response_header = ffi.cast("gw_get", boot.fast.response_header),
  request_text = ffi.cast("gw_text", boot.fast.request_text),
  set_request_header = ffi.cast("gw_set", boot.fast.set_request_header),
  set_response_header = ffi.cast("gw_set", boot.fast.set_response_header),
}
local state = core.state

-- Phases -------------------------------------------------------------------------------------------------------------

core.phases = boot.phases
local name_of = {}
for name, number in pairs(boot.phases) do name_of[number] = name end

-- A set of phases as a number.
function core.set_of(...)
  local set = 0
  for i = 1, select("#", ...) do set = bor(set, (assert(boot.phases[select(i, ...)], "no such phase"))) end
  return set
end

local function wrong_phase(set)
  if state.phase == 0 then error("no phase in kong.ctx.core.phase", 3) end
  local names = {}
  for number, name in pairs(name_of) do
    if band(set, number) ~= 0 then names[#names + 1] = name end
  end
  table.sort(names)
  error("function cannot be called in " .. (name_of[state.phase] or "this") .. " phase (only in: "
    .. table.concat(names, ", ") .. ")", 3)
end

-- Raise an error, of the plugin's line, unless the phase under way is in `set`.
function core.check(set)
  if band(state.phase, set) == 0 then wrong_phase(set) end
end

function core.phase_name()
  return name_of[state.phase]
end

-- Waiting ------------------------------------------------------------------------------------------------------------

local waits = core.set_of("rewrite", "access", "response", "timer", "certificate", "preread")

-- Comes second with whatever the gateway's own functions yield, so that a coroutine of a plugin in between hands it on
-- (coroutine.lua). Plugins never see either.
local WAIT, LEAVE = {}, {}
core.WAIT, core.LEAVE, core.waits = WAIT, LEAVE, waits

-- Wait for an operation that a function in Rust made, and return what it came to.
function core.wait(operation)
  if band(state.phase, waits) == 0 then
    error("API disabled in the context of " .. (name_of[state.phase] or "a module being loaded"), 3)
  end
  return co_yield(operation, WAIT)
end

-- Leave the handler for good; what to answer was said before.
function core.leave()
  co_yield(LEAVE, WAIT)
  error("a handler that answered goes on", 0)
end

-- Tables of the request ----------------------------------------------------------------------------------------------

local tables = {}

-- The tables that belong to the request under way. A slot is used again by later requests, which is when what an earlier
-- one left there goes.
function core.tables()
  local slot, request = state.slot, state.request
  local own = tables[slot]
  if own == nil or own.request ~= request then
    own = { request = request, shared = {}, ctx = {}, plugin = {} }
    if slot ~= 0 then tables[slot] = own end
  end
  return own
end

-- Fields ---------------------------------------------------------------------------------------------------------------

-- Field names and values as Kong takes them.
function core.check_name(name, level)
  if type(name) ~= "string" then
    error('invalid header name "' .. tostring(name) .. '": got ' .. type(name) .. ", expected string", (level or 1) + 2)
  end
end

function core.check_value(name, value, level)
  local kind = type(value)
  if kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
    error('invalid header value for "' .. name .. '": got ' .. kind .. ", expected string, number or boolean",
      (level or 1) + 2)
  end
  return tostring(value)
end

local refused = {
  [1] = "there is no message whose headers could be set",
  [2] = "the name or the value cannot be part of a header",
}

-- Set a field through one of the fast functions.
function core.set_field(set, name, value)
  local code = set(state, name, #name, value, #value)
  if code ~= 0 then error(refused[code] .. ': "' .. name .. '"', 3) end
end

return core
