-- Which plan a tenant has: a module beside the handler, as in any Kong plugin.
local plans = {}

function plans.of(conf, tenant)
  return conf.plans[tenant] or conf.default_plan
end

return plans
