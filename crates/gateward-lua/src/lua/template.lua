-- Templates of native plugins that are more than look-ups: `$(headers.a:upper())`.
-- https://developer.konghq.com/plugins/request-transformer/#templates
local core = ...
local host = core.host

-- Texts kept compiled; when there are more, all are compiled anew.
local KEPT = 4096
local compiled, count = {}, 0

-- What the template under way sees.
local values = {}

local function text_of(value)
  if value == nil or value == false then return "" end
  return tostring(value)
end

-- Names of fields are taken in any case, and `_` for `-`.
local by_name = {
  __index = function(fields, name)
    if type(name) ~= "string" then return nil end
    return rawget(fields, (name:lower():gsub("_", "-")))
  end,
}

local function environment()
  core.env.require("kong.tools.sandbox")
  local language = core.sandbox_environment({})
  return setmetatable({}, {
    __index = function(_, name)
      if name == "shared" then return core.tables().shared end
      local value = values[name]
      if value ~= nil then return value end
      return language[name]
    end,
  })
end

-- The function that renders `text`; raises an error when it is no template.
local function compile(text)
  local known = compiled[text]
  if known then return known end
  local pieces, at = {}, 1
  while true do
    local from = text:find("$(", at, true)
    if not from then break end
    local expression = text:match("^%$(%b())", from)
    if not expression then error("'$(' without its ')'", 0) end
    pieces[#pieces + 1] = ("%q"):format(text:sub(at, from - 1))
    pieces[#pieces + 1] = "__text(" .. expression .. ")"
    at = from + 1 + #expression
  end
  pieces[#pieces + 1] = ("%q"):format(text:sub(at))
  local made = environment()
  rawset(made, "__text", text_of)
  local render = host.compile("return " .. table.concat(pieces, " .. "), "=template", made)
  if count == KEPT then compiled, count = {}, 0 end
  compiled[text], count = render, count + 1
  return render
end

local function render(texts, headers, query_params, uri_captures)
  values = { headers = setmetatable(headers, by_name), query_params = query_params, uri_captures = uri_captures }
  local results = {}
  local fine, problem = pcall(function()
    for i = 1, #texts do results[i] = compile(texts[i])() end
  end)
  values = {}
  if not fine then error(problem, 0) end
  return results
end

return { compile = compile, render = render }
