-- resty.openssl.x509 and its store: certificates, and what an upstream's is verified against.
-- https://github.com/fffonion/lua-resty-openssl
local core, module = ...
local host = core.host

local function hex(bytes)
  return (bytes:gsub(".", function(byte) return ("%02X"):format(byte:byte()) end))
end

-- Names --------------------------------------------------------------------------------------------------------------------

local name = {}
name.__index = name

-- Numbers of attributes are OpenSSL's and not known here: short names, long ones and OIDs are.
function name:find(wanted, after)
  for i = (after or 0) + 1, #self.parts do
    local part = self.parts[i]
    if part.sn == wanted or part.ln == wanted or part.id == wanted then return part, i end
  end
end

function name:all()
  local all = {}
  for _, part in ipairs(self.parts) do all[part.sn or part.id] = part end
  return all
end

function name:tostring()
  local texts = {}
  for i, part in ipairs(self.parts) do texts[i] = (part.sn or part.id) .. "=" .. part.blob end
  return table.concat(texts, "/")
end
name.__tostring = name.tostring

-- Serial numbers -------------------------------------------------------------------------------------------------------------

local number = {}
number.__index = number

function number:to_hex() return (hex(self.bytes)) end
function number:to_binary() return self.bytes end
number.__tostring = number.to_hex

-- Certificates ---------------------------------------------------------------------------------------------------------------

core.x509 = core.x509 or {}
local certificate = core.x509
certificate.__index = certificate

local formats = { PEM = true, DER = true, ["*"] = true }

local function new_certificate(text, format)
  if type(text) ~= "string" then return nil, "x509.new: expect nil or a string at #1" end
  if format ~= nil and not formats[format] then return nil, "x509.new: format must be PEM, DER or *" end
  local der, err = host.x509(text, format or "*")
  if not der then return nil, "x509.new: " .. err end
  return setmetatable({ der = der }, certificate)
end

local function is_certificate(object)
  return type(object) == "table" and getmetatable(object) == certificate and type(object.der) == "string"
end

local function field(self, what) return host.x509_field(self.der, what) end

function certificate:get_subject_name() return setmetatable({ parts = field(self, "subject") }, name) end
function certificate:get_issuer_name() return setmetatable({ parts = field(self, "issuer") }, name) end
function certificate:get_not_before() return field(self, "not_before") end
function certificate:get_not_after() return field(self, "not_after") end
function certificate:get_lifetime() return self:get_not_before(), self:get_not_after() end
function certificate:get_version() return field(self, "version") end

function certificate:get_serial_number()
  return setmetatable({ bytes = field(self, "serial") }, number)
end

function certificate:digest(algorithm)
  local digest = host.digest(algorithm and tostring(algorithm):lower() or "sha1", self.der)
  if not digest then return nil, "x509:digest: invalid digest type \"" .. tostring(algorithm) .. "\"" end
  return digest
end

function certificate:tostring(format)
  if format == "DER" then return self.der end
  return host.pem("CERTIFICATE", self.der)
end
function certificate:to_PEM() return self:tostring("PEM") end
certificate.__tostring = function(self) return self:tostring("PEM") end

function certificate:pubkey_pem() return host.pem("PUBLIC KEY", field(self, "public_key")) end

-- Stores -------------------------------------------------------------------------------------------------------------------

local store = core.x509_store
store.__index = store

-- Certificates of one store.
local MOST = 1000

function store:add(object)
  if not is_certificate(object) then return nil, "x509.store:add: expect an x509 instance at #1" end
  if #self.certificates >= MOST then return nil, "x509.store:add: a store holds " .. MOST .. " certificates" end
  self.certificates[#self.certificates + 1] = object
  self.authorities = nil
  return true
end

-- What the process trusts (--trusted-certificate).
function store:use_default()
  self.trusted, self.authorities = true, nil
  return true
end

local function no_files() return nil, "x509.store: plugins have no file system: add certificates" end
store.load_file, store.load_directory = no_files, no_files

local modules = {
  ["resty.openssl.x509"] = function() return { new = new_certificate, istype = is_certificate } end,
  ["resty.openssl.x509.store"] = function()
    return {
      new = function() return setmetatable({ certificates = {}, trusted = false }, store) end,
      istype = function(object) return type(object) == "table" and getmetatable(object) == store end,
    }
  end,
}
return modules[module]()
