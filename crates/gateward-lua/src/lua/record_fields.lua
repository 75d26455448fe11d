-- Fields of log records whose values are code in a configuration (custom_fields_by_lua of native log plugins).
local core = ...
local host, kong, ngx = core.host, core.kong, core.ngx

-- Pieces of code kept; when there are more, all are made anew.
local KEPT = 4096
local made, count = {}, 0

-- The function that `code` is; nil and why it is none.
local function compile(code)
  local known = made[code]
  if known then return known end
  local sandbox = core.env.require("kong.tools.sandbox")
  local env = { kong = sandbox.view(kong), ngx = sandbox.view(ngx) }
  local run, problem = sandbox.sandbox(code, { env = env, chunk_name = "custom_fields_by_lua" })
  if not run then return nil, problem end
  if count == KEPT then made, count = {}, 0 end
  made[code], count = run, count + 1
  return run
end

-- Set the field at `path` of the record under way to what `code` returns; an error when it fails.
local function set(path, code)
  local run, problem = compile(code)
  if not run then error(problem, 0) end
  local value = run()
  kong.log.set_serialize_value(path, value)
end

return {
  check = function(code)
    local _, problem = compile(code)
    if problem then error(problem, 0) end
  end,
  set = set,
}
