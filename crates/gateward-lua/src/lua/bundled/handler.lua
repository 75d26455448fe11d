-- pre-function and post-function: Lua that stands in the configuration.
-- https://developer.konghq.com/plugins/pre-function/
local sandbox = require "kong.tools.sandbox"

local phases = { "certificate", "rewrite", "access", "header_filter", "body_filter", "log" }

-- A piece of code. It is run when it is first needed; what it then returns, if that is a function, is what is run from then
-- on, so that its local variables stay.
local function call(piece)
  if piece.settled then return piece.run() end
  local result = piece.run()
  if not piece.settled then
    piece.settled = true
    if type(result) == "function" then piece.run = result end
  end
  if type(result) == "function" then result() end
end

return function(name, priority)
  -- Per configuration and phase the pieces of code, made when they are first needed.
  local made = setmetatable({}, { __mode = "k" })

  local function pieces(conf, phase)
    local own = made[conf]
    if not own then
      own = {}
      made[conf] = own
    end
    if not own[phase] then
      local list = {}
      for i, code in ipairs(conf[phase] or {}) do
        local options = { env = { kong = sandbox.view(kong), ngx = sandbox.view(ngx) }, chunk_name = name .. ":" .. phase .. "[" .. i .. "]" }
        list[i] = { run = assert(sandbox.sandbox(code, options)) }
      end
      own[phase] = list
    end
    return own[phase]
  end

  local handler = { PRIORITY = priority, VERSION = kong.version }
  for _, phase in ipairs(phases) do
    handler[phase] = function(_, conf)
      for _, piece in ipairs(pieces(conf, phase)) do call(piece) end
    end
  end
  return handler
end
