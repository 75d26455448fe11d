-- ngx.re: regular expressions, and the module of the same name.
-- https://github.com/openresty/lua-nginx-module, https://github.com/openresty/lua-resty-core/blob/master/lib/ngx/re.md
local core = ...
local host, ngx = core.host, core.ngx
local sub = string.sub

local re = {}
ngx.re = re

local function text(value)
  if value == nil then return "" end
  return tostring(value)
end

-- Where a search begins, counted from 0.
local function start(context)
  local pos = context and tonumber(context.pos) or 1
  return pos > 1 and math.floor(pos) - 1 or 0
end

function re.match(subject, pattern, options, context, into)
  local captures, spans = host.re_match(text(subject), text(pattern), options or "", start(context))
  if not captures then return nil, spans end
  if context then context.pos = spans[1] + 1 end
  if into then
    for name, value in pairs(captures) do into[name] = value end
    return into
  end
  return captures
end

function re.find(subject, pattern, options, context, nth)
  local captures, spans = host.re_match(text(subject), text(pattern), options or "", start(context))
  if not captures then return nil, nil, spans end
  if context then context.pos = spans[1] + 1 end
  nth = nth or 0
  if captures[nth] == nil then return nil, nil, "nth out of bound" end
  return spans[nth * 2], spans[nth * 2 + 1]
end

-- The next match from `at` (counted from 0): captures, where it begins and ends, and where to go on.
local function next_match(subject, pattern, options, at)
  local captures, spans = host.re_match(subject, pattern, options, at)
  if not captures then return nil, spans end
  local from, to = spans[0], spans[1]
  return captures, from, to, to < from and to + 1 or to
end

function re.gmatch(subject, pattern, options)
  subject, pattern, options = text(subject), text(pattern), options or ""
  local _, err = host.re_match("", pattern, options, 0)
  if type(err) == "string" then return nil, err end
  local at = 0
  return function()
    if not at or at > #subject then return nil end
    local captures, _, _, on = next_match(subject, pattern, options, at)
    at = on
    return captures
  end
end

local function filled(template, captures)
  if type(template) == "function" then return text(template(captures)) end
  return (template:gsub("%$(%$?)({?)(%w*)(}?)", function(dollar, open, name, close)
    if dollar == "$" then return "$" .. open .. name .. close end
    local digits = open == "" and name:match("^%d+") or name
    if not digits or digits == "" then return "$" .. open .. name .. close end
    local value = captures[tonumber(digits) or digits]
    return (value or "") .. (open == "" and name:sub(#digits + 1) .. close or "")
  end))
end

local function replace(subject, pattern, template, options, most)
  subject, pattern, options = text(subject), text(pattern), options or ""
  if type(template) ~= "function" then template = text(template) end
  local out, at, done, copied = {}, 0, 0, 0
  while done < most and at <= #subject do
    local captures, from, to, on = next_match(subject, pattern, options, at)
    if not captures then
      if from then return nil, nil, from end
      break
    end
    out[#out + 1] = sub(subject, copied + 1, from - 1)
    out[#out + 1] = filled(template, captures)
    copied, at, done = to, on, done + 1
  end
  out[#out + 1] = sub(subject, copied + 1)
  return table.concat(out), done
end

function re.sub(subject, pattern, template, options) return replace(subject, pattern, template, options, 1) end
function re.gsub(subject, pattern, template, options) return replace(subject, pattern, template, options, math.huge) end

-- The module ---------------------------------------------------------------------------------------------------------------

local module = {}

-- The pieces of `subject` between matches, with what the first group of each matched. `most` pieces at most, if above 0.
function module.split(subject, pattern, options, context, most, into)
  if into ~= nil and type(into) ~= "table" then error("res is not a table", 2) end
  subject, pattern, options, into, most = text(subject), text(pattern), options or "", into or {}, most or 0
  local piece = start(context) + 1
  if piece > #subject then
    into[1] = nil
    return into
  end
  local at, pieces, count = piece - 1, 1, 0
  while most <= 0 or pieces < most do
    local captures, from, to, on = next_match(subject, pattern, options, at)
    if not captures then
      if from then return nil, from end
      break
    end
    local empty = to < from
    if empty and from > #subject then break end
    -- A match of nothing separates nothing from what follows it.
    if not empty or from > piece then
      into[count + 1] = sub(subject, piece, from - 1)
      into[count + 2] = captures[1] or nil
      count = count + (captures[1] and 2 or 1)
      piece, pieces = to + 1, pieces + 1
    end
    if on > #subject then break end
    at = on
  end
  into[count + 1], into[count + 2] = sub(subject, piece), nil
  return into
end

-- There is no compiler whose stack could be set.
function module.opt(option)
  if option ~= "jit_stack_size" then error("unrecognized option name", 2) end
end

core.ngx_re = module
