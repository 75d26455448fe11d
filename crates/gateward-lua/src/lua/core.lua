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
  -- By the numbers of instances.
  plugins = boot.plugins,
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
-- Phases that only Kong has; plugins find them in its messages.
local foreign = { client_hello = 0x8, cluster_listener = 0x100, error = 0x1000000, admin_api = 0x10000000 }
for name, number in pairs(foreign) do name_of[number] = name end

-- A set of phases as a number.
function core.set_of(...)
  local set = 0
  for i = 1, select("#", ...) do
    local name = select(i, ...)
    set = bor(set, (assert(boot.phases[name] or foreign[name], "no such phase")))
  end
  return set
end

-- Names of the phases in a set, in their order.
local function names_of(set)
  local names, bit_of = {}, 1
  for _ = 1, 30 do
    if band(set, bit_of) ~= 0 and name_of[bit_of] then names[#names + 1] = name_of[bit_of] end
    bit_of = bit_of * 2
  end
  return table.concat(names, ", ")
end

local function wrong_phase(set)
  if state.phase == 0 then error("no phase in ngx.ctx.KONG_PHASE, (need one of " .. names_of(set) .. ")", 4) end
  error("function cannot be called in " .. name_of[state.phase] .. " phase (only in: " .. names_of(set) .. ")", 4)
end

-- Raise an error, of the plugin's line, unless the phase under way is in `set`.
function core.check(set)
  if band(state.phase, set) == 0 then wrong_phase(set) end
end

-- Likewise unless it is in none of `set`.
function core.check_not(set)
  if state.phase == 0 then error("no phase in ngx.ctx.KONG_PHASE", 3) end
  if band(state.phase, set) ~= 0 then
    error("function cannot be called in " .. name_of[state.phase] .. " phase (can be called in any phases except: "
      .. names_of(set) .. ")", 3)
  end
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

function core.may_wait()
  return band(state.phase, waits) ~= 0
end

-- Tables of the request ----------------------------------------------------------------------------------------------

local tables = {}
core.request_tables = tables

-- The tables that belong to the request under way. A slot is used again by later requests; what an earlier one left
-- there goes then, or when the machine looks at its free slots.
function core.tables()
  local slot, request = state.slot, state.request
  local own = tables[slot]
  if own == nil or own.request ~= request then
    own = { request = request, shared = {}, ctx = {}, plugin = {} }
    if slot ~= 0 then tables[slot] = own end
  end
  return own
end

return core
