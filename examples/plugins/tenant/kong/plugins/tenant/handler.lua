-- Every request belongs to a tenant: the upstream is told its plan, the client which tenant it was served as.
local plans = require "kong.plugins.tenant.plans"

local Tenant = {
  PRIORITY = 940, -- after authentication and acl, before rate-limiting
  VERSION = "1.0.0",
}

function Tenant:access(conf)
  local tenant = kong.request.get_header(conf.header_name)
  if not tenant or tenant == "" then
    if conf.required then
      return kong.response.exit(400, { message = "Header '" .. conf.header_name .. "' is missing" })
    end
    tenant = conf.anonymous
  end
  local plan = plans.of(conf, tenant)
  if not plan then
    return kong.response.exit(403, { message = "Unknown tenant" }, { ["X-Tenant"] = tenant })
  end
  kong.ctx.plugin.tenant = tenant
  kong.service.request.set_header("X-Tenant", tenant)
  kong.service.request.set_header("X-Tenant-Plan", plan)
end

function Tenant:header_filter(conf)
  local tenant = kong.ctx.plugin.tenant
  if tenant then
    kong.response.set_header("X-Served-As", tenant)
  end
end

function Tenant:log(conf)
  kong.log.debug("served as ", kong.ctx.plugin.tenant or "nobody")
end

return Tenant
