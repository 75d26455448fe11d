-- kong.ctx: tables that live as long as the request. https://developer.konghq.com/gateway/pdk/reference/kong.ctx/
local core = ...
local state = core.state

core.kong.ctx = setmetatable({}, {
  __index = function(_, name)
    if name == "shared" then return core.tables().shared end
    if name == "plugin" then
      local plugins = core.tables().plugin
      local own = plugins[state.instance]
      if own == nil then
        own = {}
        plugins[state.instance] = own
      end
      return own
    end
  end,
  -- Set in this table, they would be there for all requests.
  __newindex = function(self, name, value)
    if name == "shared" then
      core.tables().shared = value
    elseif name == "plugin" then
      core.tables().plugin[state.instance] = value
    else
      rawset(self, name, value)
    end
  end,
})
