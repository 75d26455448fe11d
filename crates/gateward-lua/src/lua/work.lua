-- Work that would hold the worker up: done beside it while the coroutine waits, where it may.
local core = ...
local host = core.host

-- Digests of one key that are made at once, also where a coroutine could wait.
local AT_ONCE = 10000

-- What the work that `begin` begins comes to, or nil and why not.
function core.beside(begin, ...)
  if not core.may_wait() then
    return nil, "this holds a worker too long, and " .. (core.phase_name() or "a module being loaded") .. " cannot wait for it"
  end
  local operation, err = begin(...)
  if not operation then return nil, err end
  return core.wait(operation)
end

-- A key of a password, made at once or beside the worker: what `here` gives, or `beside` in time.
local function derive(here, beside, digest, password, salt, rounds, length)
  local count = tonumber(rounds)
  if count and core.may_wait() and count * math.ceil(length / 16) > AT_ONCE then
    return core.beside(beside, digest, password, salt, rounds, length)
  end
  return here(digest, password, salt, rounds, length)
end

function core.derive_pbkdf2(...) return derive(host.derive_pbkdf2, host.work_pbkdf2, ...) end
function core.derive_chained(...) return derive(host.derive_chained, host.work_chained, ...) end
