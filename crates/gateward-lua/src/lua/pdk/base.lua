-- What the functions of the PDK have in common: names and values of header fields, limits, bodies by their type.
local core = ...
local host, state = core.host, core.state
local find, lower, sub = string.find, string.lower, string.sub

-- Numbers of fields.rs.
core.REQUEST, core.RESPONSE = 0, 1

-- Fields ---------------------------------------------------------------------------------------------------------------

-- Values as texts. `level` is where the plugin's line is, seen from the caller.
local function plain(name, value, level)
  local kind = type(value)
  if kind == "string" then return value end
  if kind == "number" or kind == "boolean" then return tostring(value) end
  if kind ~= "table" then
    error(("invalid header value for %q: got %s, expected array of string, string, number or boolean"):format(name, kind),
      level + 1)
  end
  for _, each in ipairs(value) do
    if type(each) ~= "string" then
      error(("invalid header value in array %q: got %s, expected string"):format(name, type(each)), level + 1)
    end
  end
  return value
end

function core.check_field(name, value)
  if type(name) ~= "string" then
    error(("invalid header name %q: got %s, expected string"):format(tostring(name), type(name)), 3)
  end
  -- No tail call, so that the error's level counts the same.
  local field = plain(name, value, 3)
  return field
end

function core.check_fields(headers)
  if type(headers) ~= "table" then error("headers must be a table", 3) end
  for name, value in pairs(headers) do
    if type(name) ~= "string" then
      error(("invalid header name %q: got %s, expected string"):format(tostring(name), type(name)), 3)
    end
    local kind = type(value)
    if kind == "table" then
      plain(name, value, 3)
    elseif kind ~= "string" and kind ~= "number" and kind ~= "boolean" then
      error(("invalid header value for %q: got %s, expected string, number, boolean or array of strings"):format(name, kind),
        3)
    end
  end
end

local refused = {
  [1] = "there is no message whose headers could be set",
  [2] = "the name or the value cannot be part of a header",
}

-- Set (`how` is "set") or add a field by the slower way, which takes arrays and nothing.
function core.change_field(which, how, name, value)
  local code = host.change_field(which, how, name, value)
  if code ~= 0 then error(refused[code] .. ': "' .. name .. '"', 3) end
end

-- Set a field through one of the fast functions.
function core.set_field(set, which, name, value)
  local code
  if type(value) == "table" then
    code = host.change_field(which, "set", name, value)
  else
    code = set(state, name, #name, value, #value)
  end
  if code ~= 0 then error(refused[code] .. ': "' .. name .. '"', 3) end
end

local by_any_name = {
  __index = function(self, name)
    if type(name) == "string" then return rawget(self, (lower(name):gsub("_", "-"))) end
  end,
}

-- All fields, found by their names in any case and with underscores for dashes; "truncated" when there are more.
function core.fields(which, most)
  local fields, more = host.fields(which, most == 0 and 1e6 or most, false)
  return setmetatable(fields, by_any_name), more and "truncated" or nil
end

-- A number from 1 to 1000.
function core.check_most(name, most, default)
  if most == nil then return default end
  if type(most) ~= "number" then error(name .. " must be a number", 3) end
  if most < 1 then error(name .. " must be >= 1", 3) end
  if most > 1000 then error(name .. " must be <= 1000", 3) end
  return most
end

-- Bodies -----------------------------------------------------------------------------------------------------------------

-- The parts of a multipart body by name: a text, or an array of them. `nil`: it is none.
function core.parts(body, content_type)
  local boundary = content_type:match('[bB][oO][uU][nN][dD][aA][rR][yY]="([^"]+)"')
    or content_type:match("[bB][oO][uU][nN][dD][aA][rR][yY]=([^;,%s]+)")
  if not boundary then return nil end
  local parts, mark = {}, "--" .. boundary
  local from = find(body, mark, 1, true)
  while from do
    local start = from + #mark
    if sub(body, start, start + 1) == "--" then break end
    local head_end, content = find(body, "\r?\n\r?\n", start)
    local till = find(body, "\n" .. mark, content or start, true)
    if not head_end or not till then break end
    -- The name is in the part's own Content-Disposition.
    for line in sub(body, start, head_end):gmatch("[^\r\n]+") do
      if find(lower(line), "^content%-disposition:") then
        local name = line:match('[;%s]name="([^"]*)"') or line:match("[;%s]name=([^;%s]+)")
        local stop = sub(body, till - 1, till - 1) == "\r" and till - 2 or till - 1
        if name then
          local value, known = sub(body, content + 1, stop), parts[name]
          if known == nil then
            parts[name] = value
          elseif type(known) == "table" then
            known[#known + 1] = value
          else
            parts[name] = { known, value }
          end
        end
        break
      end
    end
    from = till + 1
  end
  return parts
end

local FORM, JSON, PARTS = "application/x-www-form-urlencoded", "application/json", "multipart/form-data"
core.FORM, core.JSON, core.PARTS = FORM, JSON, PARTS

-- A body taken apart by its type: the table, or `nil` and what is wrong; then the type. `read` gives the body as a text,
-- or `nil` and an error.
function core.take_apart(content_type, max_args, read)
  if not content_type then return nil, "missing content type" end
  local kind = lower(content_type:match("^[^;]*"))
  if find(kind, FORM, 1, true) == 1 then
    local most = core.check_most("max_args", max_args, 100)
    local body, err = read()
    if not body then return nil, err, FORM end
    return (host.decode_args(body, most)), nil, FORM
  elseif find(kind, JSON, 1, true) == 1 then
    local body, err = read()
    if not body then return nil, err, JSON end
    local value = core.decode(body)
    if type(value) ~= "table" then return nil, "invalid json body", JSON end
    return value, nil, JSON
  elseif find(kind, PARTS, 1, true) == 1 then
    local body, err = read()
    if not body then return nil, err, PARTS end
    local parts = core.parts(body, content_type)
    if not parts then return nil, "unable to decode multipart body", PARTS end
    return parts, nil, PARTS
  end
  return nil, "unsupported content type '" .. content_type .. "'", kind
end

-- Arguments of a query as a text, names in alphabetical order.
function core.ordered_args(args)
  local out = {}
  for name, value in pairs(args) do
    if type(name) ~= "string" then return nil, "arg keys must be strings" end
    local text, err = core.encode_args({ [name] = value })
    if not text then return nil, err end
    if text ~= "" then out[#out + 1] = text end
  end
  table.sort(out)
  return table.concat(out, "&")
end

local function one_arg(out, name, value)
  local kind = type(value)
  if kind == "boolean" then
    if value then out[#out + 1] = name end
  elseif kind == "string" or kind == "number" then
    out[#out + 1] = name .. "=" .. host.escape_uri(tostring(value))
  else
    return "attempt to use " .. kind .. " as query arg value"
  end
end

-- As `ngx.encode_args`; `nil` and an error for values that are none.
function core.encode_args(args)
  local out = {}
  for name, value in pairs(args) do
    local escaped = host.escape_uri(tostring(name))
    local err
    if type(value) == "table" then
      for _, each in ipairs(value) do err = err or one_arg(out, escaped, each) end
    else
      err = one_arg(out, escaped, value)
    end
    if err then return nil, err end
  end
  return table.concat(out, "&")
end
